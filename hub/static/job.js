// One job, live: its progress and its log as the server tells them.
import { refresh } from "./refresh.js";

const KEPT = 400_000; // characters of the log that stay on the page
const ENDED = new Set(["done", "failed", "cancelled"]);

export function followJob(root) {
  const log = root.querySelector("#log");
  const follow = root.querySelector("[data-follow]");
  follow.hidden = false;
  toEnd(log);
  const source = new EventSource(`/api/v1/jobs/${Number(root.dataset.job)}/events`);
  let fresh = true;
  let shape = "";

  source.addEventListener("log", (event) => {
    // The stream begins with the first line, the page came with the last ones.
    if (fresh) log.textContent = "";
    fresh = false;
    log.append(`${event.data}\n`);
    if (log.textContent.length > KEPT) log.textContent = log.textContent.slice(-KEPT / 2);
    if (follow.querySelector("input").checked) toEnd(log);
  });
  source.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    show(root, job);
    const now = `${job.state} ${job.artefacts.length} ${job.position}`;
    if (shape && now !== shape || ENDED.has(job.state)) refresh().catch(() => {});
    shape = now;
    document.title = `${Math.floor(job.progress * 100)} % · ${document.title.replace(/^\d+ % · /, "")}`;
    if (ENDED.has(job.state)) {
      source.close();
      document.title = `Job ${job.id}, ${job.state} · SLM Hub`;
    }
  });
  source.addEventListener("error", () => {
    // A stream that is merely cut comes back by itself; one that was refused does not.
    if (source.readyState === EventSource.CLOSED) poll(root);
  });
}

function show(root, job) {
  const bar = root.querySelector("#job-main progress");
  if (bar) bar.value = job.progress;
  const percent = root.querySelector("[data-percent]");
  if (percent && job.state !== "queued") percent.textContent = `${Math.floor(job.progress * 100)} %`;
  const message = root.querySelector("[data-message]");
  if (message && job.message) message.textContent = job.message;
}

async function poll(root) {
  const page = await refresh(["log"]).catch(() => null);
  if (!page || page.querySelector("[data-job]")) setTimeout(() => poll(root), 2500);
}

function toEnd(log) {
  log.scrollTop = log.scrollHeight;
}
