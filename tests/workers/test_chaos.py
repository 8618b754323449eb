"""Chaos: jobs keep coming while slots, workers, converters and Redis are killed, by a seed.

CHAOS_SEED and CHAOS_KILLS in the environment repeat a run, or make it longer.

Whatever happens, in the end every accepted job is over, each request has exactly one artefact,
every published file is whole, and no process and no temporary file is left.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis_server import RedisServer
from sqlmodel import select
from workbench import PATIENCE, Bench, alive, make_bench, wait

from hub import db, jobs
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import Conflict
from hub.models import ACTIVE, Job

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CHAOS_KILLS", "50"))
SEED = int(os.environ.get("CHAOS_SEED", "20261120"))
"""The seed is fixed, so that a change that breaks something is told from bad luck."""


class Chaos:
    """One run: two workers with a slot each, jobs, and a hand that kills."""

    def __init__(self, bench: Bench, redis: RedisServer, seed: int) -> None:
        self.bench = bench
        self.redis = redis
        self.random = random.Random(seed)
        self.jobs: list[int] = []
        self.pids: set[int] = set()
        self.live = [bench.start(), bench.start()]
        self.done: dict[str, int] = {}
        self.anew = 0

    def supervise(self) -> None:
        """Start a worker that ended anew, as `slmhub up` does.

        A worker does end by itself: Celery gives up when a slot is killed while it starts.
        """
        for place, worker in enumerate(self.live):
            if worker.poll() is not None:
                self.live[place] = self.bench.start()
                self.anew += 1

    def submit(self) -> None:
        # A few numbers only: the same request comes again and again, running or done.
        number = self.random.randrange(25)
        self.jobs.append(self.bench.submit(number, sleep=0.2))

    def slots(self) -> list[psutil.Process]:
        return [child for worker in self.live for child in self.children(worker)]

    def converters(self) -> list[psutil.Process]:
        return [inner for slot in self.slots() for inner in self.children(slot)]

    def children(self, process: psutil.Process) -> list[psutil.Process]:
        try:
            found: list[psutil.Process] = process.children()
        except psutil.NoSuchProcess:
            return []
        self.pids |= {child.pid for child in found}
        return found

    def kill_one(self, processes: list[psutil.Process]) -> bool:
        if not processes:
            return False
        try:
            self.random.choice(processes).kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def slot(self) -> bool:
        return self.kill_one(self.slots())

    def converter(self) -> bool:
        return self.kill_one(self.converters())

    def worker(self) -> bool:
        place = self.random.randrange(len(self.live))
        self.live[place].kill()
        self.live[place].wait(PATIENCE)
        self.live[place] = self.bench.start()
        return True

    def stop_worker(self) -> bool:
        place = self.random.randrange(len(self.live))
        self.live[place].terminate()
        self.live[place].wait(PATIENCE)
        self.live[place] = self.bench.start()
        return True

    def flush(self) -> bool:
        self.redis.ask("FLUSHALL")
        return True

    def restart_redis(self) -> bool:
        self.redis.stop()
        time.sleep(self.random.random())
        self.redis.start()
        return True

    def freeze(self) -> bool:
        """A slot that stands still for longer than its lease, and then goes on."""
        slots = self.slots()
        if not slots:
            return False
        frozen = self.random.choice(slots)
        try:
            frozen.suspend()
            time.sleep(self.bench.settings.lease + 1)
            frozen.resume()
        except psutil.NoSuchProcess:
            return False
        return True

    def cancel(self) -> bool:
        if self.jobs:
            try:
                jobs.cancel(self.bench.settings, self.random.choice(self.jobs))
            except Conflict:
                return False
        return bool(self.jobs)

    def run(self, kills: int) -> None:
        acts: list[tuple[Callable[[], bool], int]] = [
            (self.slot, 8),
            (self.converter, 4),
            (self.worker, 4),
            (self.stop_worker, 3),
            (self.flush, 6),
            (self.restart_redis, 2),
            (self.freeze, 1),
            (self.cancel, 4),
        ]
        weights = [weight for _, weight in acts]
        while sum(self.done.values()) < kills:
            for _ in range(self.random.randrange(3)):
                self.submit()
            time.sleep(self.random.random() * 0.8)
            act = self.random.choices([act for act, _ in acts], weights)[0]
            self.converters()
            self.supervise()
            if act():
                self.done[act.__name__] = self.done.get(act.__name__, 0) + 1


@pytest.fixture
def bench(settings: Settings, redis_server: RedisServer, tmp_path: Path) -> Bench:
    return make_bench(settings, redis_server, tmp_path, lease=2.0, heartbeat=0.4)


def test_nothing_is_lost_doubled_or_left(bench: Bench, redis_server: RedisServer) -> None:
    print(f"seed {SEED}, {KILLS} kills")
    chaos = Chaos(bench, redis_server, SEED)
    try:
        chaos.run(KILLS)
        for number in range(25):
            chaos.jobs.append(bench.submit(number, sleep=0.2))

        def left() -> int:
            chaos.supervise()
            return sum(state in ACTIVE for state in bench.states().values())

        while before := left():
            wait(lambda before=before: left() < before, "jobs that are not over")
        chaos.converters()
        for worker in chaos.live:
            worker.terminate()
            worker.wait(PATIENCE)
        wait(lambda: not any(alive(pid) for pid in chaos.pids), "processes that are left")
        bench_check(bench)
        print(chaos.done, f"{len(bench.states())} jobs, {chaos.anew} workers started anew")
        assert "stalled" not in bench.log.read_text(), bench.story()
    except (TimeoutError, psutil.TimeoutExpired):
        print(chaos.done, bench.story(), sep="\n")
        raise
    finally:
        bench.stop()


def bench_check(bench: Bench) -> None:
    """The invariants of test_app, with what chaos permits: done twice is not made twice."""
    with db.reading(bench.settings.database) as session:
        rows = list(session.exec(select(Job)))
    accepted = {job.request_key for job in rows}
    done = {job.request_key for job in rows if job.state == "done"}
    # What was killed three times, or cancelled, may have failed; then it was not published twice.
    assert {job.error_kind for job in rows if job.state == "failed"} <= {"lost_worker", "internal"}
    assert len(done) >= len(accepted) // 2
    bench.check()
    store = BlobStore(bench.settings.blobs)
    assert all(store.path(digest).stat().st_mode & 0o777 == 0o444 for digest in store.iter())
