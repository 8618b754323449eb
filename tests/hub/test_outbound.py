"""Tests of hub/outbound.py: where the hub goes for bytes, and where not."""

import zlib

import pytest
from fakehub import FakeHub, tiny_model
from hypothesis import given
from hypothesis import strategies as st

from hub.outbound import Hosts, RedirectRefused, Web, public
from hub.patience import Interrupted

HF = Hosts("https://huggingface.co", ("cdn.example.org", "*.lake.example", "10.0.0.9:9000"))


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/a",
        "https://cdn-lfs.hf.co/x?sig=1",
        "https://cas-bridge.xethub.hf.co/x",
        "https://cdn-lfs-us-1.huggingface.co/x",
        "https://HF.co/x",
        "https://hf.co./x",
        "https://cdn.example.org/x",
        "http://cdn.example.org/x",
        "https://a.lake.example/x",
        "http://10.0.0.9:9000/x",
    ],
)
def test_allowed_hosts(url: str) -> None:
    assert HF.check(url)


# Every way to write an address that leads into the machine or its network; none is on the list.
PRIVATE = """
127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 017700000001 0177.0.0.1 127.0.0.1.
localhost localhost. LOCALHOST ip6-localhost 0 0.0.0.0 0x0 000.0.0.0 10.0.0.1 10.1 0xa000001
172.16.0.1 172.31.255.254 192.168.0.1 192.168.1 3232235521 169.254.169.254 2852039166
0xa9fea9fe 0251.0376.0251.0376 169.254.43518 100.64.0.1 198.18.0.1 224.0.0.1 255.255.255.255
[::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:169.254.169.254] [fe80::1] [fc00::1]
[fd12:3456::1] [64:ff9b::7f00:1] [64:ff9b::a9fe:a9fe] [2002:7f00:1::] [2001:0:7f00:1::1] [ff02::1]
[::127.0.0.1] [0:0:0:0:0:ffff:10.0.0.1] metadata.google.internal metadata instance-data
kubernetes.default.svc redis db 127.0.0.1.nip.io localtest.me hub
"""
TRICKS = """
https://huggingface.co@127.0.0.1/ https://hf.co:x@evil.example/ https://user:pass@huggingface.co/
https://127.0.0.1#@huggingface.co/ https://evil.example/huggingface.co https://evil.example?hf.co
https://huggingface.co.evil.example/ https://evilhf.co/ https://xn--hf-x.co/ https://hf.co.evil/
http://huggingface.co/ http://cdn-lfs.hf.co/ ftp://huggingface.co/ file:///etc/passwd file://hf.co/x
gopher://huggingface.co/ data:text/plain,x javascript:1 https:///x https:/x //evil.example/x x
https://huggingface.co:x/ https://huggingface.co:99999/ https://hf.co%00.evil/ https://hf.co\\@evil/
https://hf。co/ https://ⓗf.co/ https://hf.co%2eevil.example/ https://10.0.0.9:9001/
https://lake.example/ https://a.lake.example.evil/ http://[::ffff:127.0.0.1]:6379/
https://127.0.0.1:6379/ unix:///run/redis.sock https://0177.0.0.1:8080/x https://[::1]:8080/
"""
NOT_PUBLIC = """
127.0.0.1 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 ::1 fe80::1
fe80::1%eth0 fc00::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: ff02::1 ::
2001:0:0:0:0:0:80ff:fffe
"""


@pytest.mark.parametrize("host", PRIVATE.split())
def test_private_addresses_are_refused(host: str) -> None:
    with pytest.raises((RedirectRefused, ValueError)):
        HF.check(f"https://{host}/x")


@pytest.mark.parametrize("url", TRICKS.split())
def test_tricks_with_addresses_are_refused(url: str) -> None:
    with pytest.raises(RedirectRefused):
        HF.check(url)


@given(st.text(max_size=40))
def test_any_text_is_allowed_or_refused_and_nothing_else(text: str) -> None:
    try:
        split = HF.check(f"https://{text}")
    except RedirectRefused:
        return
    host = (split.hostname or "").rstrip(".")
    assert host.endswith(("hf.co", "huggingface.co", ".lake.example")) or host in (
        "cdn.example.org",
        "10.0.0.9",
    )


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_on_the_internet(address: str) -> None:
    assert not public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_on_the_internet(address: str) -> None:
    assert public(address)


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"]])
def test_a_name_that_leads_into_a_private_network_is_refused(found: list[str]) -> None:
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return found

    web = Web(HF, resolve=resolve)
    with pytest.raises(RedirectRefused):
        web.get("https://rebound.hf.co/x", {})
    assert asked == ["rebound.hf.co"]


def test_the_token_is_for_the_endpoint_alone() -> None:
    with FakeHub() as hub:
        hub.tokens.add("hf_good")
        sha = hub.add("org/model", tiny_model())
        web = Web(Hosts(hub.url), token="hf_good")
        with web.get(f"{hub.url}/org/model/resolve/{sha}/model.safetensors", {}) as answer:
            data = b"".join(bytes(piece) for piece in answer.chunks(memoryview(bytearray(1000))))
        web.close()
        assert data == tiny_model()["model.safetensors"]
        assert hub.requests(server="hub")[0].headers["authorization"] == "Bearer hf_good"
        assert "authorization" not in hub.requests(server="cdn")[0].headers


@pytest.mark.parametrize(
    "target",
    ["http://localhost:1/x", "http://evil.example/", "file:///etc/passwd", "http://[::1]/"],
)
def test_a_redirect_elsewhere_is_refused(target: str) -> None:
    with FakeHub() as hub:
        hub.fault("/x", location=target)
        web = Web(Hosts(hub.url))
        with pytest.raises(RedirectRefused) as caught:
            web.get(f"{hub.url}/x", {})
        web.close()
        assert "HUB_UPSTREAM_HOSTS" in caught.value.hint


def test_redirects_in_circles_end() -> None:
    with FakeHub() as hub:
        hub.fault("/x", times=None, location="/x")
        web = Web(Hosts(hub.url))
        with pytest.raises(Exception, match="times in a row"):
            web.get(f"{hub.url}/x", {})
        web.close()


def test_a_connection_is_used_again() -> None:
    with FakeHub(cdn=False) as hub:
        sha = hub.add("org/model", tiny_model())
        opened = []
        web = Web(Hosts(hub.url), resolve=lambda host, port: opened.append(host) or ["127.0.0.1"])
        for _ in range(3):
            with web.get(f"{hub.url}/org/model/resolve/{sha}/config.json", {}) as answer:
                assert list(answer.chunks(memoryview(bytearray(1 << 20))))
        web.close()
        assert len(opened) == 1


def test_silence_ends_a_connection() -> None:
    with FakeHub(cdn=False) as hub:
        sha = hub.add("org/model", tiny_model())
        hub.fault("*/model.safetensors", stall=120)
        web = Web(Hosts(hub.url), silence=1)
        url = f"{hub.url}/org/model/resolve/{sha}/model.safetensors"
        # On a busy machine the headers may be what is late.
        with pytest.raises(Interrupted, match="sent nothing"), web.get(url, {}) as answer:
            list(answer.chunks(memoryview(bytearray(1000))))


def test_a_proxy_of_the_operator_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        # The fake knows no CONNECT: that it refuses shows that it was asked, not a name server.
        with pytest.raises(Interrupted, match=r"models\.example broke"):
            Web(Hosts("http://models.example")).get("http://models.example/x", {})


@pytest.mark.parametrize("wbits", [31, 15])
def test_a_compressed_answer_is_unpacked_in_small_pieces(wbits: int) -> None:
    data = b"0" * 5_000_000
    squeeze = zlib.compressobj(wbits=wbits)
    packed = squeeze.compress(data) + squeeze.flush()
    encoding = {"Content-Encoding": "gzip" if wbits == 31 else "deflate"}
    with FakeHub() as hub:
        hub.fault("/x", body=packed, headers=encoding)
        web = Web(Hosts(hub.url))
        with web.get(f"{hub.url}/x", {}) as answer:
            pieces = [bytes(piece) for piece in answer.chunks(memoryview(bytearray(100_000)))]
        web.close()
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 100_000
