"""The server of `narrows explore`: the page of a map that can ask the model.

It listens on this computer only. Whatever it answers lies below a secret path, a
token drawn for each start; other sites' pages cannot ask it, because the names in Host and Origin
are checked (a site can make its own name point to 127.0.0.1). No path from a request is ever
opened. The standard library's server is enough for one user and five questions.
"""

from __future__ import annotations

import json
import math
import secrets
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narrows.estimators.base import Estimator, with_feature_names
from narrows.exceptions import InputError, NarrowsError, ParameterError
from narrows.io.image_files import read_header, read_pixels
from narrows.io.read import read
from narrows.maps.geometry import check_estimator
from narrows.maps.map_page import map_html
from narrows.models.denoising_autoencoder import DenoisingAutoencoder

MAX_BODY = 32 * 2**20  # bytes of a question
MAX_CODES = 4096  # decoded at a time
MAX_NOISE = 10  # standard deviations
Answer = tuple[str, bytes, dict[str, str]]  # content type, body, more headers


class Explorer:
    """A fitted model and the rows on its map, as answers to the page's questions.

    Parameters
    ----------
    model : fitted estimator
    X : array of shape (n, \\*input_shape_)
    y : array of shape (n,), optional
    feature_names : list of str, optional
    title : str, optional
    port : int
        0: one that is free.

    Raises
    ------
    ParameterError
        The port is in use.
    """

    def __init__(
        self,
        model: Estimator,
        X: Any,
        *,
        y: ArrayLike | None = None,
        feature_names: Sequence[str] | None = None,
        title: str | None = None,
        port: int = 0,
    ) -> None:
        check_estimator(model)
        self.names = model.state_.spec.feature_names
        self.model = with_feature_names(model, None)
        self.rows = model._validate(X)
        self.token = secrets.token_urlsafe(16)
        self.lock = threading.Lock()  # the model answers one question at a time
        self.questions: dict[str, Callable[[bytes], Answer]] = {
            "decode": self.decode,
            "encode": self.encode,
            "corrupt": self.corrupt,
            "sample": self.sample,
        }
        live = {
            "base": f"/{self.token}/",
            "samples": hasattr(model, "sample"),
            "noise": not isinstance(model, DenoisingAutoencoder),  # which has its own
            "most": MAX_BODY,
        }
        try:
            self.server = _Server(("127.0.0.1", port), self)
        except OSError as error:
            raise ParameterError(
                f"Port {port} cannot be used ({error.strerror}); give another --port, or 0 for one "
                "that is free."
            ) from error
        self.port = int(self.server.server_address[1])
        try:
            page = map_html(model, X, y=y, feature_names=feature_names, title=title, live=live)
        except BaseException:
            self.server.server_close()
            raise
        self.page = page.encode()

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    def serve(self) -> None:
        """Answer until `close` is called or Ctrl-C is pressed."""
        self.server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """End `serve`, from another thread."""
        self.server.shutdown()

    # ------------------------------------------------------------------ the answers

    def decode(self, body: bytes) -> Answer:
        """Codes as rows in the page's layout, float32."""
        codes = _json(body).get("codes")
        try:
            Z = np.asarray(codes, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputError("codes is no matrix of numbers.") from error
        if Z.ndim != 2 or not 0 < len(Z) <= MAX_CODES:
            raise InputError(f"codes must be a matrix of 1 to {MAX_CODES} codes.")
        return self._rows(np.asarray(self.model._rows(Z)))

    def encode(self, body: bytes) -> Answer:
        """An image file or a row of CSV as a code, with its reconstruction and its error."""
        row = self._given_row(body)
        code, restored = self.model._codes(row), np.asarray(self.model.reconstruct(row))
        return _as_json(
            {
                "code": code[0].tolist(),
                "error": float(-self.model.score_samples(row)[0]),
                "row": self._flat(row),
                "restored": self._flat(restored),
            }
        )

    def corrupt(self, body: bytes) -> Answer:
        """A row with noise, and what the model makes of it.

        A denoising model adds the noise it was trained with; for others it is Gaussian, with the
        deviation given, in scaled units.
        """
        asked = _json(body)
        number, noise = asked.get("row"), asked.get("noise")
        if not isinstance(number, int) or not 0 <= number < len(self.rows):
            raise InputError(f"row must be a whole number from 0 to {len(self.rows) - 1}.")
        if not isinstance(noise, int | float) or not 0 <= noise <= MAX_NOISE:
            raise InputError(f"noise must be a number from 0 to {MAX_NOISE}.")
        layout, rows = self.model.state_.spec.layout, self.rows[number : number + 1]
        row = layout.from_model(rows, rows.dtype.str)
        if isinstance(self.model, DenoisingAutoencoder):
            noisy = np.asarray(self.model.corrupt(row))
        else:
            scale = self.model.state_.scaling.scale.cpu().numpy()
            drawn = np.random.default_rng().normal(scale=noise, size=rows.shape)
            noisy = layout.from_model(rows + drawn * scale, rows.dtype.str)
        return self._rows(np.concatenate([noisy, np.asarray(self.model.reconstruct(noisy))]))

    def sample(self, body: bytes) -> Answer:
        """A new row, and the code that the encoder gives it."""
        if not hasattr(self.model, "sample"):
            raise InputError("This model has no prior to draw samples from.")
        row = np.asarray(self.model.sample(1))
        return _as_json({"code": self.model._codes(row)[0].tolist(), "row": self._flat(row)})

    def _given_row(self, body: bytes) -> NDArray[Any]:
        """A row like those of the fit, from what was dropped on the page."""
        layout = self.model.state_.spec.layout
        with tempfile.TemporaryDirectory() as folder:  # under a name of our own
            if layout.axes in ("HW", "CHW", "HWC"):
                path = Path(folder) / "image"
                path.write_bytes(body)
                try:
                    read_header(path)  # refuses too many pixels before they are decoded
                    return self._image(read_pixels(path, (layout.shape[1], layout.shape[2])))
                except NarrowsError as error:
                    raise InputError("The file is no image that narrows reads.") from error
            path = Path(folder) / "rows.csv"
            path.write_bytes(body)
            try:
                data = read(path)
                table = np.asarray(data.X)
            except NarrowsError as error:
                raise InputError(str(error).replace(str(path), "the file")) from error
        names = data.feature_names
        if names is not None and self.names is not None and names != list(self.names):
            raise InputError(
                f"The file's columns are {', '.join(names[:5])} …; the model was fitted on "
                f"{', '.join(self.names[:5])} …: give these columns in this order."
            )
        if table.size != layout.n_features:
            raise InputError(
                f"The file holds {table.size:,} numbers; the model takes one row of "
                f"{layout.n_features:,}."
            )
        return np.asarray(table.reshape(1, *layout.user_shape).astype(np.float64))

    def _image(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels (H, W) or (H, W, 3) with the channels and the range of the model's images."""
        layout = self.model.state_.spec.layout
        planes = np.atleast_3d(pixels).astype(np.float64)
        if planes.shape[2] != layout.shape[0]:
            planes = np.repeat(planes.mean(2, keepdims=True), layout.shape[0], 2)
        rows = np.moveaxis(planes, -1, 0)[None]
        white = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
        low, high = self.value_range
        if np.dtype(layout.dtype) == pixels.dtype and high > white / 2:
            return layout.from_model(rows)  # the model's images are of this range, too
        return layout.from_model(low + rows / white * (high - low))

    @cached_property
    def value_range(self) -> tuple[float, float]:
        """The lowest and the highest value of an image."""
        bounds = self.model.info()["bounds"]
        if bounds is not None:
            return min(bounds[0]), max(bounds[1])
        some = self.rows[:1000]
        return float(np.nanmin(some)), float(np.nanmax(some))

    def _flat(self, rows: NDArray[Any]) -> list[float | None]:
        """The first row in the networks' layout, as the page draws it; JSON has no NaN."""
        values = self._in_layout(rows)[0].tolist()
        return [value if math.isfinite(value) else None for value in values]

    def _in_layout(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        shaped = self.model.state_.spec.layout.to_model(rows)
        return np.asarray(shaped.reshape(len(shaped), -1).astype("<f4"))

    def _rows(self, rows: NDArray[Any]) -> Answer:
        found = self._in_layout(rows)
        return "application/octet-stream", found.tobytes(), {"X-Rows": str(len(found))}


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a question under way does not keep the command from ending

    def __init__(self, address: tuple[str, int], explorer: Explorer) -> None:
        self.explorer = explorer
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news; anything else is told in the terminal."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "narrows", ""
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds that a client may take to send its question

    def do_GET(self) -> None:
        """The page."""
        explorer = self.server.explorer
        if self._refused():
            return
        if self.path != f"/{explorer.token}/":
            self._say(HTTPStatus.NOT_FOUND, "There is no such page.")
            return
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", explorer.page)

    def do_POST(self) -> None:
        """The answer to a question of the page."""
        explorer = self.server.explorer
        if self._refused():
            return
        start, _, name = self.path.rpartition("/")
        question = explorer.questions.get(name)
        if start != f"/{explorer.token}" or question is None:
            self._say(HTTPStatus.NOT_FOUND, "There is no such question.")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 12 or int(length) > MAX_BODY:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MAX_BODY:,} bytes are read.")
            return
        body = self.rfile.read(int(length))
        try:
            with explorer.lock:
                kind, answer, more = question(body)
        except NarrowsError as error:
            self._say(HTTPStatus.BAD_REQUEST, str(error))
        except Exception:  # a bug: the server goes on
            traceback.print_exc()
            words = "The model could not answer; the terminal says why."
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, words)
        else:
            self._send(HTTPStatus.OK, kind, answer, more)

    def _refused(self) -> bool:
        """Whether the request comes by another name than this server's, or from another site."""
        port = self.server.explorer.port
        names = {f"127.0.0.1:{port}", f"localhost:{port}"}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in names and (
            origin is None or origin in {f"http://{name}" for name in names}
        ):
            return False
        self._say(HTTPStatus.FORBIDDEN, "This server answers its own page only.")
        return True

    def _say(self, status: HTTPStatus, words: str) -> None:
        self.close_connection = True  # what was not read of the question is not the next one
        self._send(status, "text/plain; charset=utf-8", words.encode())

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
            **(more or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *given: Any) -> None:
        """Requests are not printed."""


def _json(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("The question is no JSON.") from error
    if not isinstance(asked, dict):
        raise InputError("The question is no JSON object.")
    return asked


def _as_json(answer: dict[str, Any]) -> Answer:
    return "application/json", json.dumps(answer).encode(), {}
