#!/usr/bin/env python3
"""Writes a WAV file to find speech in: silence, a sentence, silence, a sentence, silence.

    make_speech.py OUT.wav

espeak-ng speaks; the result is 16 kHz, mono, 16 bit. Where the sentences lie is printed.
"""

import array
import os
import subprocess
import sys
import tempfile
import wave

RATE = 16000
SENTENCES = ["The inference server is ready.", "It found the second sentence too."]
SILENCE_SECONDS = 1.5


def resample(samples, rate):
    """Linear interpolation to RATE; good enough for a voice."""
    if rate == RATE:
        return samples
    out = array.array("h")
    for i in range(len(samples) * RATE // rate):
        whole, part = divmod(i * rate, RATE)
        left = samples[whole]
        right = samples[min(whole + 1, len(samples) - 1)]
        out.append(left + (right - left) * part // RATE)
    return out


def speak(sentence):
    """The sentence as samples at RATE, without the silence that espeak-ng leaves around it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "sentence.wav")
        try:
            subprocess.run(["espeak-ng", "-w", path, sentence], check=True)
        except FileNotFoundError:
            sys.exit("make_speech: espeak-ng is not installed; `make speech` installs it")
        with wave.open(path) as file:
            samples = array.array("h", file.readframes(file.getnframes()))
            rate = file.getframerate()
    loud = [i for i, sample in enumerate(samples) if abs(sample) > 300]
    return resample(samples[loud[0]:loud[-1] + 1], rate)


def main(arguments):
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit(__doc__.strip())
    silence = array.array("h", bytes(2 * int(SILENCE_SECONDS * RATE)))
    sound = array.array("h", silence)
    for sentence in SENTENCES:
        start = len(sound)
        sound += speak(sentence)
        print(f"{start / RATE:5.2f} s to {len(sound) / RATE:5.2f} s: {sentence}")
        sound += silence
    with wave.open(arguments[0], "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound.tobytes())
    print(f"wrote {arguments[0]}, {len(sound) / RATE:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
