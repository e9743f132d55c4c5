"""The server of `narrows explore`: what it answers, and what it refuses."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from narrows import Autoencoder, ConditionalVAE, ParameterError
from narrows.maps import Explorer

DIGITS = load_digits()
X, Y = DIGITS.images[:80], DIGITS.target[:80]


def started(explorer: Explorer) -> Iterator[Explorer]:
    thread = threading.Thread(target=explorer.serve)
    thread.start()
    yield explorer
    explorer.close()
    thread.join()
    explorer.server.server_close()


@pytest.fixture(scope="module")
def explorer() -> Iterator[Explorer]:
    model = ConditionalVAE(latent_dim=2, max_epochs=2, random_state=0).fit(X, Y)
    yield from started(Explorer(model, X, y=Y))


@pytest.fixture(scope="module")
def table() -> Iterator[Explorer]:
    rows = np.random.default_rng(0).normal(size=(60, 4)) * 10
    model = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(rows)
    yield from started(Explorer(model, rows))


def ask(
    explorer: Explorer, what: str, body: Any = None, method: str = "POST", **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", explorer.port, timeout=20)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, what, data, named)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def asked(explorer: Explorer, what: str, body: Any) -> tuple[int, bytes]:
    return ask(explorer, f"/{explorer.token}/{what}", body)


def test_the_page_lies_below_a_token(explorer: Explorer) -> None:
    status, page = ask(explorer, f"/{explorer.token}/", method="GET")
    assert status == 200 and b"ConditionalVAE" in page
    for path in ("/", "/token/", f"/{explorer.token}/../", f"/{explorer.token}/etc/passwd"):
        assert ask(explorer, path, method="GET")[0] == 404
    assert ask(explorer, "/wrong/decode", {"codes": [[0, 0]]})[0] == 404


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_other_sites_are_refused(explorer: Explorer, headers: dict[str, str]) -> None:
    question = f"/{explorer.token}/decode"
    assert ask(explorer, question, {"codes": [[0, 0]]}, **headers)[0] == 403
    assert ask(explorer, f"/{explorer.token}/", method="GET", **headers)[0] == 403


def test_codes_are_decoded_as_inverse_transform_does(explorer: Explorer) -> None:
    Z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    status, body = asked(explorer, "decode", {"codes": Z.tolist()})
    expected = np.asarray(explorer.model.inverse_transform(Z)).reshape(5, -1)
    assert status == 200
    assert np.allclose(np.frombuffer(body, "<f4").reshape(5, -1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("decode", b"no JSON"),
        ("decode", [1]),
        ("decode", {}),
        ("decode", {"codes": []}),
        ("decode", {"codes": [[0, 0, 0]]}),
        ("decode", {"codes": [[0, None]]}),
        ("decode", {"codes": [[0, 0]] * 5000}),
        ("corrupt", {"row": 80, "noise": 1}),
        ("corrupt", {"row": -1, "noise": 1}),
        ("corrupt", {"row": 1.5, "noise": 1}),
        ("corrupt", {"row": 1, "noise": 1e9}),
        ("encode", b"no image"),
        ("encode", b""),
    ],
)
def test_bad_questions_get_a_sentence_and_the_server_goes_on(
    explorer: Explorer, what: str, body: Any
) -> None:
    status, words = asked(explorer, what, body)
    assert status == 400 and words.endswith(b".")
    assert asked(explorer, "decode", {"codes": [[0, 0]]})[0] == 200


def test_a_question_that_is_too_long_is_not_read(explorer: Explorer) -> None:
    question = f"/{explorer.token}/encode"
    assert ask(explorer, question, b"", Content_Length=str(10**12))[0] == 413
    assert ask(explorer, question, b"", Content_Length="-1")[0] == 413


def test_a_dropped_image_gets_its_code(explorer: Explorer) -> None:
    file = io.BytesIO()
    Image.fromarray((X[0] / 16 * 255).round().astype(np.uint8)).save(file, "PNG")
    status, body = asked(explorer, "encode", file.getvalue())
    answer = json.loads(body)
    assert status == 200
    assert np.abs(np.array(answer["row"]).reshape(8, 8) - X[0]).max() < 0.05
    assert np.allclose(answer["code"], explorer.model.transform(X[:1])[0], atol=0.05)
    assert np.isfinite(answer["error"])


def test_an_image_that_claims_too_many_pixels_is_refused(explorer: Explorer) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    assert asked(explorer, "encode", file.getvalue())[0] == 400


def test_missing_values_stay_missing() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 4))
    rows[3, 1] = np.nan
    model = Autoencoder(latent_dim=2, max_epochs=1, missing="mask", random_state=0).fit(rows)
    for explorer in started(Explorer(model, rows)):
        body = asked(explorer, "corrupt", {"row": 3, "noise": 0})[1]
        assert np.isnan(np.frombuffer(body, "<f4").reshape(2, 4)[0]).tolist() == [0, 1, 0, 0]
        answer = json.loads(asked(explorer, "encode", b"1,,3,4\n")[1])
        assert answer["row"] == [1, None, 3, 4]


def test_columns_in_another_order_are_refused() -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))
    model = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(frame)
    for explorer in started(Explorer(model, frame)):
        status, words = asked(explorer, "encode", b"b,a,c\n1,2,3\n")
        assert status == 400 and b"in this order" in words
        assert asked(explorer, "encode", b"a,b,c\n1,2,3\n")[0] == 200
        assert asked(explorer, "encode", b"a,b,c\n1,2,3\n4,5,6\n")[0] == 400


def test_a_dropped_row_gets_its_code(table: Explorer) -> None:
    status, body = asked(table, "encode", b"a,b,c,d\n1,2,3,4\n")
    assert status == 200
    expected = table.model.transform(np.array([[1.0, 2, 3, 4]]))[0]
    assert np.allclose(json.loads(body)["code"], expected, atol=1e-5)
    assert asked(table, "encode", b"a,b\n1,2\n")[0] == 400


def test_noise_of_0_changes_nothing_and_more_changes_more(table: Explorer) -> None:
    found = []
    for noise in (0, 0.001, 5):
        body = asked(table, "corrupt", {"row": 3, "noise": noise})[1]
        noisy, _ = np.frombuffer(body, "<f4").reshape(2, 4)
        found.append(np.abs(noisy - table.rows[3]).max())
    assert found[0] < 1e-5 < found[1] < found[2]


def test_a_sample_has_a_code(explorer: Explorer) -> None:
    answer = json.loads(asked(explorer, "sample", {})[1])
    assert len(answer["code"]) == 2 and len(answer["row"]) == 64


def test_eight_clients_get_their_own_answers(explorer: Explorer) -> None:
    Z = np.linspace(-2, 2, 16).reshape(8, 2)

    def one(z: Any) -> Any:
        return np.frombuffer(asked(explorer, "decode", {"codes": [z.tolist()]})[1], "<f4")

    with ThreadPoolExecutor(8) as pool:
        found = np.stack(list(pool.map(one, Z)))
    expected = np.asarray(explorer.model.inverse_transform(Z.astype(np.float32)))
    assert np.allclose(found, expected.reshape(8, -1), atol=1e-5)


def test_a_client_that_goes_away_is_no_trouble(explorer: Explorer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", explorer.port, timeout=20)
    connection.putrequest("POST", f"/{explorer.token}/decode")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b"{")
    connection.close()
    assert asked(explorer, "decode", {"codes": [[0, 0]]})[0] == 200


def test_a_port_in_use_is_refused_with_advice(explorer: Explorer) -> None:
    with pytest.raises(ParameterError, match="another --port"):
        Explorer(explorer.model, X, port=explorer.port)
