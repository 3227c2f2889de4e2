#!/usr/bin/env python3
"""Writes a file's bytes as a C array: embed.py FILE NAME > FILE.c, for proto/meson.build."""
import pathlib
import sys

data = pathlib.Path(sys.argv[1]).read_bytes()
name = sys.argv[2]
print(f'#include "proto/{name}.h"\n\nconst size_t {name}_len = {len(data)};\n'
      f"const unsigned char {name}[] = {{")
for at in range(0, len(data), 20):
    print("    " + ", ".join(str(byte) for byte in data[at:at + 20]) + ",")
print("};")
