#!/usr/bin/env python3
"""Finds the speech in a WAV file with the model silero_vad of a running server.

    find_speech.py [--url HOST:PORT] FILE.wav          16 kHz, mono, 16 bit

The sound goes to the server in windows of 512 samples (32 ms). The model remembers the sound so
far in a tensor that each answer carries and the next request brings back, so the server keeps
nothing between two requests.

It speaks the v2 protocol with nothing but the standard library, to show how little that takes: a
request is a JSON header that names the tensors, followed by their bytes, little-endian, in the
same order.
"""

import argparse
import array
import http.client
import json
import sys
import time
import wave

MODEL = "silero_vad"
RATE = 16000
WINDOW = 512    # new samples per request
CONTEXT = 64    # samples of the window before that come first
STATE_SHAPE = [2, 1, 128]

START_AT = 0.5          # speech begins at this probability
END_BELOW = 0.35        # and ends when it stays below this one
END_AFTER = 0.1         # for so many seconds


class Client:
    """One keep-alive connection to the server."""

    def __init__(self, url):
        self.http = http.client.HTTPConnection(url, timeout=30)

    def infer(self, model, inputs):
        """inputs: [(name, datatype, shape, bytes)]. Returns {output name: bytes}."""
        header = json.dumps({
            "inputs": [{"name": name, "datatype": datatype, "shape": shape,
                        "parameters": {"binary_data_size": len(data)}}
                       for name, datatype, shape, data in inputs],
            "parameters": {"binary_data_output": True},
        }).encode()
        self.http.request(
            "POST", f"/v2/models/{model}/infer",
            header + b"".join(data for *_, data in inputs),
            {"Content-Type": "application/octet-stream",
             "Inference-Header-Content-Length": str(len(header))})
        response = self.http.getresponse()
        body = response.read()
        if response.status != 200:
            sys.exit(f"find_speech: the server answered {response.status}: {body.decode()}")
        return self.split(body, int(response.getheader("Inference-Header-Content-Length")))

    @staticmethod
    def split(body, header_length):
        outputs, offset = {}, header_length
        for output in json.loads(body[:header_length])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            outputs[output["name"]] = body[offset:offset + size]
            offset += size
        return outputs


def floats(values):
    data = array.array("f", values)
    if sys.byteorder == "big":
        data.byteswap()
    return data.tobytes()


def read_wav(path):
    """The sound as floats in -1 .. 1."""
    try:
        with wave.open(path) as file:
            form = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            if form != (RATE, 1, 2):
                sys.exit(f"find_speech: '{path}' has {form[0]} Hz, {form[1]} channels, "
                         f"{8 * form[2]} bit; expected {RATE} Hz, 1 channel, 16 bit")
            frames = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        sys.exit(f"find_speech: '{path}': {error}")
    samples = array.array("h", frames)
    if sys.byteorder == "big":
        samples.byteswap()
    return [sample / 32768 for sample in samples]


def speech_probabilities(client, sound):
    """Yields the probability of speech in each window of the sound."""
    state = bytes(4 * 2 * 1 * 128)
    context = [0.0] * CONTEXT
    rate = RATE.to_bytes(8, "little")
    for start in range(0, len(sound), WINDOW):
        window = sound[start:start + WINDOW]
        window += [0.0] * (WINDOW - len(window))
        outputs = client.infer(MODEL, [
            ("input", "FP32", [1, CONTEXT + WINDOW], floats(context + window)),
            ("state", "FP32", STATE_SHAPE, state),
            ("sr", "INT64", [1], rate),
        ])
        state = outputs["stateN"]
        context = window[-CONTEXT:]
        probability = array.array("f", outputs["output"])
        if sys.byteorder == "big":
            probability.byteswap()
        yield probability[0]


def find_segments(probabilities):
    """Returns [(start, end)] in seconds. Two thresholds, so that a breath does not end a word."""
    segments, start, quiet_since = [], None, None
    for index, probability in enumerate(probabilities):
        now = index * WINDOW / RATE
        if probability >= START_AT:
            quiet_since = None
            if start is None:
                start = now
        elif probability < END_BELOW and start is not None:
            if quiet_since is None:
                quiet_since = now
            if now - quiet_since >= END_AFTER:
                segments.append((start, quiet_since))
                start, quiet_since = None, None
    if start is not None:
        segments.append((start, len(probabilities) * WINDOW / RATE))
    return segments


def print_timeline(seconds, segments, width=64):
    """Two rows: a mark for each second, and a block where there is speech."""
    scale = width / seconds
    ruler = [" "] * (width + 8)
    for second in range(int(seconds) + 1):
        label = str(second)
        at = int(second * scale)
        if all(c == " " for c in ruler[max(at - 1, 0):at + len(label)]):
            ruler[at:at + len(label)] = label
    row = ["."] * width
    for start, end in segments:
        for column in range(int(start * scale), min(int(end * scale) + 1, width)):
            row[column] = "#"
    print("  " + "".join(ruler).rstrip() + "  s")
    print("  " + "".join(row))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="localhost:8000", help="server (%(default)s)")
    parser.add_argument("file")
    arguments = parser.parse_args()

    sound = read_wav(arguments.file)
    if not sound:
        sys.exit(f"find_speech: '{arguments.file}' holds no sound")
    started = time.monotonic()
    try:
        probabilities = list(speech_probabilities(Client(arguments.url), sound))
    except OSError as error:
        sys.exit(f"find_speech: no answer from {arguments.url}: {error}; is `make serve` running?")
    took = time.monotonic() - started

    seconds = len(sound) / RATE
    segments = find_segments(probabilities)
    print_timeline(seconds, segments)
    for start, end in segments:
        print(f"  speech from {start:6.2f} s to {end:6.2f} s")
    if not segments:
        print("  no speech")
    print(f"  {seconds:.1f} s of sound, {len(probabilities)} requests in {took:.2f} s")


if __name__ == "__main__":
    main()
