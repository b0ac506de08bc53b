"""What the simulated engine promises: HTTP that holds, tokens that count, none of them early."""

import http.client
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from pytest_kitt.engine.simulated import text, wire
from pytest_kitt.engine.simulated.text import Output
from tests.engines.serving import COMMAND, PATIENCE_S, Server, Start, exchange, raw_post, serving, stream


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One quick server for the tests that leave no trace in it."""
    with serving("--ttft-ms", "2", "--itl-ms", "0.5") as server:
        yield server


# Tokens and text


@pytest.mark.parametrize(
    "prompt", ["", "a", "hello world", "  two  spaces ", "tab\tand\r\nnewline", "wörld 🙂🙂 漢字", "\0\x1f"]
)
def test_tokens_give_the_text_back(prompt: str) -> None:
    """Nothing is lost: the pieces joined, and the ids decoded, are the text."""
    assert "".join(text.split(prompt)) == prompt
    assert text.decode(text.encode(prompt)) == prompt
    assert all(0 < token < 2**53 for token in text.encode(prompt))


def test_count_is_additive_over_words() -> None:
    """Words joined by single spaces have the tokens of the words."""
    words = ["a", "word", "sixsix", "elevenchars", "naïve", "🙂"]
    assert text.count(" ".join(words)) == sum(map(text.count, words))


@pytest.mark.parametrize(
    "token", [0, -1, 1, 255, 2**53, 2**70, int.from_bytes(b"\x01a b"), int.from_bytes(b"\x01\xff")]
)
def test_decode_names_what_is_no_token(token: int) -> None:
    """An id that encoding never gives is an error that names it."""
    with pytest.raises(ValueError, match=str(token)):
        text.decode([token])


def test_vocabulary_is_one_token_each() -> None:
    """The 256 words differ, and each is one token with its leading space."""
    assert len(set(text.WORDS)) == 256
    assert all(text.split(word) == [word] for word in text.WORDS)


def test_compose_is_pinned() -> None:
    """The text of a key is the same on every machine and in every version."""
    assert text.compose("0 greedy hello", 4) == Output((" den", " val", " tal", " ler"), "length")


def test_longer_output_begins_with_the_shorter() -> None:
    """A limit cuts the text and does not change it."""
    assert text.compose("any key", 100).text.startswith(text.compose("any key", 10).text)


def test_composed_text_counts_exactly() -> None:
    """Tokenised again, the output has as many tokens as were made."""
    assert text.count(text.compose("any key", 1000).text) == 1000


def test_cut_ends_with_the_token_that_completes_the_stop() -> None:
    """Tokens count up to the one that completes the stop string; the text ends before the string."""
    output = Output((" ab", " cd", " ef", " gh"), "length")
    assert text.cut(output, ["d e"]) == Output((" ab", " c", ""), "stop")
    assert text.cut(output, ["zz"]) == output


def test_cut_takes_the_stop_that_is_complete_first() -> None:
    """Of several stop strings the one that is complete first wins, in whatever order they are given."""
    output = Output((" ab", " cd", " ef"), "length")
    assert text.cut(output, ["ab cd ef", "cd"]) == text.cut(output, ["cd", "ab cd ef"]) == Output((" ab", " "), "stop")


def test_answer_belongs_to_the_last_question() -> None:
    """In a few-shot prompt the question that ends last is asked; of two that end together the longer one."""
    answers = {"1+1?": "2", "21+1?": "22", "3+3?": "6"}
    assert text.find_answer("Q: 3+3? A: 6 Q: 21+1? A:", answers) == "22"
    assert text.find_answer("nothing", answers) is None


# HTTP, without a socket


def test_reader_takes_any_split_of_the_bytes() -> None:
    """Requests read byte by byte are those read at once."""
    raw = raw_post("/a?b=c", b"one") + b"\r\n" + raw_post("/d", b"") + b"GET /e HTTP/1.0\r\n\r\n"
    whole, slow = wire.RequestReader(), wire.RequestReader()
    whole.feed(raw)
    at_once = [whole.take() for _ in range(4)]
    byte_by_byte = []
    for byte in raw:
        slow.feed(bytes([byte]))
        byte_by_byte.append(slow.take())
    assert [request for request in byte_by_byte if request] == at_once[:3]
    assert [(request.head.path, request.body) for request in at_once if request] == [
        ("/a", b"one"),
        ("/d", b""),
        ("/e", b""),
    ]


@pytest.mark.parametrize(
    "raw, status",
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 67108865\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 65536, 431),
    ],
)
def test_reader_refuses(raw: bytes, status: int) -> None:
    """What is no HTTP/1.1 request, or too large, has the status that says so."""
    reader = wire.RequestReader()
    reader.feed(raw)
    with pytest.raises(wire.MalformedError) as caught:
        reader.take()
    assert caught.value.status == status


# The server: small endpoints


def test_says_where_it_listens_and_stops_at_once(start: Start) -> None:
    """One line of JSON on stdout, nothing on stderr, and exit code 0 by SIGTERM, in mid-stream too."""
    server = start("--ttft-ms", "60000")
    with socket.create_connection(server.address) as connection:
        connection.sendall(raw_post("/v1/completions", b'{"prompt": "x", "stream": true}'))
        assert connection.recv(9) == b"HTTP/1.1 "
        assert server.stop() == (0, "", "")


def test_stops_by_interrupt(start: Start) -> None:
    """SIGINT is as good as SIGTERM: exit code 0 and no traceback."""
    server = start()
    server.process.send_signal(signal.SIGINT)
    _, err = server.process.communicate(timeout=PATIENCE_S)
    assert (server.process.returncode, err) == (0, "")


def test_busy_port_is_one_sentence() -> None:
    """A port in use is exit code 1 and one line that names it and the cure."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--port", port], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "--port 0" in line


@pytest.mark.parametrize(
    "options",
    [
        "--ttft-ms -1",
        "--itl-ms nan",
        "--error-rate 1.5",
        "--tokens 0",
        "--port 70000",
        "--max-concurrent x",
        "--api-key-env KITT_TEST_UNSET",
        "--tls-cert only.pem",
        "--tls-cert no.pem --tls-key no.pem",
        "--answers no.jsonl",
    ],
)
def test_bad_option_is_a_usage_error(options: str, tmp_path: Path) -> None:
    """A value that makes no sense is exit code 2 and a message that names the option."""
    done = subprocess.run(
        [*COMMAND, *options.split()], capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert options.split(maxsplit=1)[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_small_endpoints(shared: Server) -> None:
    """Health, models and version answer as their clients expect."""
    assert shared.get("/health").json() == {"status": "ok"}
    (model,) = shared.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("simulated", 8192)
    assert shared.get("/version").json()["version"]


def test_health_waits_for_the_load(start: Start) -> None:
    """While it loads, health and generation are 503."""
    server = start("--load-ms", "60000")
    assert server.get("/health").status_code == 503
    assert server.post("/v1/completions", prompt="x").status_code == 503


def test_health_becomes_ok(start: Start) -> None:
    """After the load health is 200, and not before."""
    before = time.monotonic()
    server = start("--load-ms", "300")
    while server.get("/health").status_code == 503:
        assert time.monotonic() < before + PATIENCE_S
    assert time.monotonic() - before >= 0.3


def test_tokenize_and_back(shared: Server) -> None:
    """The ids of a text decode to it, whichever name the field has."""
    for name in ("prompt", "content"):
        reply = shared.post("/tokenize", **{name: "hello wörld"}).json()
        assert reply["count"] == len(reply["tokens"]) == 4
        assert reply["max_model_len"] == 8192
    assert shared.post("/detokenize", tokens=reply["tokens"]).json()["prompt"] == "hello wörld"
    assert shared.post("/detokenize", tokens=[0]).status_code == 400


def test_tokenize_counts_messages_as_chat_does(shared: Server) -> None:
    """The tokens of messages are the prompt tokens that chat reports."""
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    count = shared.post("/tokenize", messages=messages).json()["count"]
    usage = shared.post("/v1/chat/completions", messages=messages, max_tokens=1).json()["usage"]
    assert usage["prompt_tokens"] == count


def test_metrics_count_tokens(start: Start) -> None:
    """The counters are the tokens of the usage, under vLLM's names and the model's."""
    server = start("--ttft-ms", "1", "--itl-ms", "0", "--model", 'a"b')
    server.complete("one two three", max_tokens=5)
    stream(server, prompt="one", max_tokens=7)
    assert server.metric("vllm:prompt_tokens_total") == 4
    assert server.metric("vllm:generation_tokens_total") == 12
    assert server.metric("vllm:num_requests_running") == 0
    assert 'model_name="a\\"b"' in server.get("/metrics").text


@pytest.mark.parametrize(
    "method, path, body, status, words",
    [
        ("GET", "/nowhere", b"", 404, "/nowhere"),
        ("GET", "/v1/completions", b"", 405, "POST"),
        ("POST", "/health", b"", 405, "GET"),
        ("POST", "/v1/completions", b"{", 400, "JSON"),
        ("POST", "/v1/completions", b"[]", 400, "object"),
        ("POST", "/v1/completions", b"{}", 400, "`prompt`"),
        ("POST", "/v1/completions", b'{"prompt": ["a", "b"]}', 400, "`prompt`"),
        ("POST", "/v1/completions", b'{"prompt": "x", "model": "gpt"}', 404, "`gpt`"),
        ("POST", "/v1/completions", b'{"prompt": "x", "max_tokens": 0}', 400, "max_tokens"),
        ("POST", "/v1/completions", b'{"prompt": "x", "max_tokens": true}', 400, "max_tokens"),
        ("POST", "/v1/completions", b'{"prompt": "x", "stop": ""}', 400, "stop"),
        ("POST", "/v1/completions", b'{"prompt": "x", "n": 2}', 400, "`n`"),
        ("POST", "/v1/chat/completions", b'{"messages": []}', 400, "messages"),
        ("POST", "/v1/chat/completions", b'{"messages": [{"content": [{"type": "image_url"}]}]}', 400, "content"),
    ],
)
def test_refusals(shared: Server, method: str, path: str, body: bytes, status: int, words: str) -> None:
    """What cannot be served has its status and an OpenAI error that says why."""
    reply = httpx.request(method, shared.url + path, content=body)
    error = reply.json()["error"]
    assert reply.status_code == error["code"] == status
    assert words in error["message"]


def test_context_length(start: Start) -> None:
    """Prompt and output together fit the context to the token; one more is context_length_exceeded."""
    server = start("--context", "8", "--ttft-ms", "0", "--itl-ms", "0")
    assert server.complete("a b c", max_tokens=5)["usage"]["total_tokens"] == 8
    assert server.complete("a b c")["usage"]["total_tokens"] == 8
    refused = server.post("/v1/completions", prompt="a b c", max_tokens=6)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert server.post("/v1/completions", prompt="a b c d e f g h").status_code == 400


def test_key_is_asked_for(start: Start) -> None:
    """With a key only its bearer is served; health needs none."""
    server = start("--api-key-env", "KITT_TEST_KEY", env={"KITT_TEST_KEY": "s3cret"})
    assert server.get("/health").status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 401
    assert httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert "s3cret" not in server.stop()[2]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_https(start: Start, tmp_path: Path) -> None:
    """With a certificate it serves https, streams too."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", *kind, *names], check=True, capture_output=True, timeout=PATIENCE_S)
    server = start("--tls-cert", str(cert), "--tls-key", str(key))
    assert server.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(cert))
    reply = httpx.post(
        f"{server.url}/v1/completions", json={"prompt": "x", "max_tokens": 3, "stream": True}, verify=context
    )
    assert reply.text.count("data: {") == 3
    with socket.create_connection(server.address) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        plain.recv(100)
    code, _, err = server.stop()
    assert (code, "Traceback" in err) == (0, False)


# The server: what it generates


def test_streamed_chat(shared: Server) -> None:
    """Chat streams a role, one chunk per token, the reason in the last of them, the usage if asked, and [DONE]."""
    result = stream(
        shared,
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=5,
        stream_options={"include_usage": True},
    )
    role, *chunks, usage = result.events
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["length"]
    assert {chunk["object"] for chunk in result.events} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in result.events}) == 1
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    assert result.last == "[DONE]"


def test_streamed_completion(shared: Server) -> None:
    """Completions stream one chunk per token, without usage if nobody asks."""
    result = stream(shared, prompt="hello", max_tokens=4)
    assert [event["object"] for event in result.events] == ["text_completion"] * 4
    assert result.events[-1]["choices"][0]["finish_reason"] == "length"
    assert not any("usage" in event for event in result.events)


@pytest.mark.parametrize("tokens", [1, 2, 64, 500])
def test_output_counts_exactly(shared: Server, tokens: int) -> None:
    """The chunks, the usage and the text tokenised again agree on the number of tokens."""
    result = stream(shared, prompt="p", max_tokens=tokens, stream_options={"include_usage": True})
    assert len(result.tokens) == tokens
    assert result.events[-1]["usage"]["completion_tokens"] == tokens
    assert shared.post("/tokenize", prompt=result.text).json()["count"] == tokens


def test_default_tokens(shared: Server) -> None:
    """Without a limit in the request the server's own holds; max_completion_tokens goes before max_tokens."""
    assert shared.complete("x")["usage"]["completion_tokens"] == 64
    reply = shared.complete("x", max_tokens=3, max_completion_tokens=2, ignore_eos=True, min_tokens=2)
    assert reply["usage"]["completion_tokens"] == 2


def test_same_text_where_it_is_promised(shared: Server) -> None:
    """Greedy or with a seed a prompt has one text, streamed or not; sampled without a seed it has many."""
    greedy = shared.complete("x", temperature=0)["choices"][0]["text"]
    assert greedy == stream(shared, prompt="x", temperature=0).text
    assert greedy != shared.complete("y", temperature=0)["choices"][0]["text"]
    seeded = shared.complete("x", seed=1)["choices"][0]["text"]
    assert seeded == shared.complete("x", seed=1)["choices"][0]["text"]
    assert seeded != shared.complete("x", seed=2)["choices"][0]["text"]
    assert shared.complete("x")["choices"][0]["text"] != shared.complete("x")["choices"][0]["text"]


def test_prompt_as_token_ids(shared: Server) -> None:
    """A prompt of ids is the prompt of their text."""
    ids = shared.post("/tokenize", prompt="hello world").json()["tokens"]
    by_ids = shared.post("/v1/completions", prompt=ids, temperature=0).json()
    assert by_ids["choices"] == shared.complete("hello world", temperature=0)["choices"]


def test_stop_string(shared: Server) -> None:
    """A stop string ends the text before itself, streamed or not, with the reason stop."""
    words = shared.complete("x", temperature=0)["choices"][0]["text"].split()
    stop = f" {words[5]}"
    reply = shared.complete("x", temperature=0, stop=[stop])
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert stop not in reply["choices"][0]["text"]
    streamed = stream(shared, prompt="x", temperature=0, stop=stop)
    assert streamed.text == reply["choices"][0]["text"]
    assert streamed.events[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(streamed.events) == reply["usage"]["completion_tokens"] <= 6


def test_answers(start: Start, tmp_path: Path) -> None:
    """A prompt that holds a question gets its answer and the reason stop; a short limit cuts it."""
    file = tmp_path / "answers.jsonl"
    file.write_text('{"question": "2+2?", "answer": "It is four, naïvely."}\n\n', encoding="utf-8")
    server = start("--answers", str(file))
    chat = server.post(
        "/v1/chat/completions", messages=[{"role": "user", "content": "Say: 2+2?"}], ignore_eos=True
    ).json()
    assert chat["choices"][0]["message"]["content"] == "It is four, naïvely."
    assert chat["choices"][0]["finish_reason"] == "stop"
    assert stream(server, prompt="2+2?").text == "It is four, naïvely."
    assert server.complete("2+2?", max_tokens=2)["choices"][0] == {
        "index": 0,
        "logprobs": None,
        "finish_reason": "length",
        "text": "It is",
    }


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"question": "x"}', '{"question": "", "answer": "x"}'])
def test_bad_answers_name_the_line(tmp_path: Path, line: str) -> None:
    """A line that is no question with its answer is a usage error that names file and line."""
    (tmp_path / "answers.jsonl").write_text(f'{{"question": "a", "answer": "b"}}\n{line}\n', encoding="utf-8")
    done = subprocess.run(
        [*COMMAND, "--answers", "answers.jsonl"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "answers.jsonl:2" in done.stderr


def test_error_rate(start: Start) -> None:
    """Seed and serial decide who fails: the same requests to the same server fail again, about as many as asked."""
    options = ("--error-rate", "0.5", "--seed", "7", "--ttft-ms", "0", "--tokens", "1")

    def statuses() -> list[int]:
        server = start(*options)
        return [server.post("/v1/completions", prompt="x").status_code for _ in range(40)]

    first = statuses()
    assert first == statuses()
    assert set(first) == {200, 500}
    assert 8 <= first.count(500) <= 32


def test_error_body_and_log(start: Start) -> None:
    """An injected error is an OpenAI error, and one line on stderr."""
    server = start("--error-rate", "1")
    reply = server.post("/v1/completions", prompt="x")
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "InternalServerError")
    assert len(server.stop()[2].splitlines()) == 1


# The server: time


def test_no_token_is_early(start: Start) -> None:
    """Token i never arrives before the request was sent plus ttft plus i * itl."""
    server = start("--ttft-ms", "50", "--itl-ms", "10")
    tokens = 20
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda prompt: stream(server, prompt=prompt, max_tokens=tokens), "abcd"))
    early = [
        (index, at - result.sent)
        for result in results
        for index, (at, _) in enumerate(result.tokens)
        if at - result.sent < 0.050 + index * 0.010
    ]
    assert early == []
    assert [len(result.tokens) for result in results] == [tokens] * 4


def test_whole_answer_is_not_early(start: Start) -> None:
    """An answer that is not streamed comes when its last token is due."""
    server = start("--ttft-ms", "50", "--itl-ms", "10")
    sent = time.monotonic()
    server.complete("x", max_tokens=11)
    assert time.monotonic() - sent >= 0.150


def test_arrival_is_the_last_byte(start: Start) -> None:
    """A slow body delays the timetable: it starts when the last byte was read."""
    server = start("--ttft-ms", "100", "--tokens", "1")
    raw = raw_post("/v1/completions", b'{"prompt": "x"}', "Connection: close")
    with socket.create_connection(server.address, timeout=PATIENCE_S) as connection:
        connection.sendall(raw[:-1])
        time.sleep(0.05)
        sent = time.monotonic()
        connection.sendall(raw[-1:])
        assert connection.recv(9) == b"HTTP/1.1 "
        assert time.monotonic() - sent >= 0.1


def test_queue_shows_in_ttft(start: Start) -> None:
    """With one slot, the second request's first token waits for the first one's last."""
    server = start("--ttft-ms", "40", "--itl-ms", "10", "--max-concurrent", "1")
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda prompt: stream(server, prompt=prompt, max_tokens=5), "abc"))
    spans = sorted((result.tokens[0][0], result.tokens[-1][0]) for result in results)
    earliest = min(result.sent for result in results)
    assert [first - earliest >= (place * 0.080 + 0.040) for place, (first, _) in enumerate(spans)] == [True] * 3


def test_queue_shows_in_metrics(start: Start) -> None:
    """Running and waiting are told apart."""
    server = start("--ttft-ms", "60000", "--max-concurrent", "2")
    connections = [socket.create_connection(server.address) for _ in range(3)]
    for connection in connections:
        connection.sendall(raw_post("/v1/completions", b'{"prompt": "x"}'))
    server.wait_for("vllm:num_requests_waiting", 1)
    assert server.metric("vllm:num_requests_running") == 2
    for connection in connections:
        connection.close()
    server.wait_for("vllm:num_requests_running", 0)
    server.wait_for("vllm:num_requests_waiting", 0)


def test_disconnect_frees_the_slot(start: Start) -> None:
    """A client that goes in mid-stream leaves its slot to the next, and no word on stderr."""
    server = start("--ttft-ms", "1", "--itl-ms", "1000", "--max-concurrent", "1")
    gone = socket.create_connection(server.address, timeout=PATIENCE_S)
    gone.sendall(raw_post("/v1/completions", b'{"prompt": "x", "stream": true, "max_tokens": 1000}'))
    received = b""
    while b"data: {" not in received:
        received += gone.recv(4096)
    gone.close()
    assert len(stream(server, prompt="y", max_tokens=1).tokens) == 1
    assert server.metric("vllm:num_requests_running") == 0
    assert server.stop() == (0, "", "")


# The server: HTTP on the wire


def test_each_token_is_a_chunk_of_its_own(shared: Server) -> None:
    """Every event is one chunk of the chunked encoding, and the last chunk is empty."""
    raw = exchange(
        shared, raw_post("/v1/completions", b'{"prompt": "x", "stream": true, "max_tokens": 3}', "Connection: close")
    )
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    events = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        events.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    assert [event.endswith(b"\n\n") for event in events] == [True] * 4 + [False]
    assert events[3:] == [b"data: [DONE]\n\n", b""]


def test_keep_alive(shared: Server) -> None:
    """One connection serves request after request, streams and errors too."""
    connection = http.client.HTTPConnection(*shared.address, timeout=PATIENCE_S)
    connection.connect()
    first = connection.sock
    for body in (b'{"prompt": "x", "stream": true}', b"{", b'{"prompt": "x"}'):
        connection.request("POST", "/v1/completions", body)
        connection.getresponse().read()
        assert connection.sock is first
    connection.close()


def test_pipelining(shared: Server) -> None:
    """Requests sent without waiting are answered in their order."""
    raw = exchange(
        shared,
        raw_post("/v1/completions", b'{"prompt": "x", "stream": true, "max_tokens": 2}')
        + b"GET /health HTTP/1.1\r\n\r\n" * 100
        + raw_post("/tokenize", b'{"prompt": "x"}')
        + b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n",
    )
    places = [raw.index(words) for words in (b"[DONE]", b'"status"', b'"tokens"', b'"version"')]
    assert places == sorted(places)
    assert raw.count(b"HTTP/1.1 200 OK") == 103


def test_http_1_0_ends_with_the_connection(shared: Server) -> None:
    """A client of HTTP/1.0 gets its stream without chunks."""
    raw = exchange(
        shared, raw_post("/v1/completions", b'{"prompt": "x", "stream": true, "max_tokens": 1}', version="1.0")
    )
    assert b"chunked" not in raw
    assert raw.endswith(b"}\n\ndata: [DONE]\n\n")


def test_expect_continue(shared: Server) -> None:
    """A client that asks before it sends its body is told to go on, once."""
    raw = raw_post("/tokenize", b'{"prompt": "x"}', "Expect: 100-continue", "Connection: close")
    head, _, body = raw.partition(b"\r\n\r\n")
    with socket.create_connection(shared.address, timeout=PATIENCE_S) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_malformed_request_is_answered_and_closed(shared: Server) -> None:
    """What is no HTTP gets 400 and the end of the connection; what came before it is answered first."""
    raw = exchange(shared, b"GET /health HTTP/1.1\r\n\r\nnonsense\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 400 Bad Request" in raw


def test_too_large_body_is_answered_while_it_is_sent(shared: Server) -> None:
    """The client reads its 413 although it is still sending."""
    with socket.create_connection(shared.address, timeout=PATIENCE_S) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 1_000_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_large_body(start: Start) -> None:
    """A prompt of some megabytes is read whole."""
    server = start("--context", "2000000", "--ttft-ms", "0")
    usage = server.complete("word " * 400_000 + "end", max_tokens=1)["usage"]
    assert usage["prompt_tokens"] == 400_001


def test_many_clients(start: Start) -> None:
    """Two hundred streams at once all end whole, and the metrics know their tokens."""
    server = start("--ttft-ms", "20", "--itl-ms", "2")
    barrier = threading.Barrier(200)

    def run(_: int) -> int:
        barrier.wait(PATIENCE_S)
        return len(stream(server, prompt="x", max_tokens=10).tokens)

    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(run, range(200))) == [10] * 200
    assert server.metric("vllm:generation_tokens_total") == 2000
