#!/usr/bin/env python3
"""Compares backends/onnxruntime/ort_api.h with ONNX Runtime's own header.

usage: check_ort_slots.py ONNXRUNTIME_C_API_H

Each X(slot, name, return type, parameters) must be the entry at that place of the
official OrtApi table, with the same types, and must exist since the API version
that ort_api.h asks for. Exit 1 names every difference.
"""
import pathlib
import re
import sys

OURS = pathlib.Path(__file__).resolve().parent.parent / "backends/onnxruntime/ort_api.h"


def types_of(params):
    """The parameter types, without names, annotations and the tags of structs and enums."""
    types = []
    for param in params.split(","):
        param = re.sub(r"\b_\w+?_\b(\([^)]*\))?", " ", param)  # _In_, _Out_writes_(n) ...
        param = re.sub(r"\b(enum|struct)\b", " ", param).replace("ORTCHAR_T", "char")
        param = re.sub(r"\w+\s*$", "", param.replace("*", " * "))  # the name
        types.append("".join(re.findall(r"\w+|\*", param)))
    return types


def declaration(entry):
    """(name, return type, parameter types) of one entry of the official table."""
    if match := re.match(r"ORT_API2_STATUS\((\w+),(.*)\)", entry):
        return match[1], "OrtStatus*", types_of(match[2])
    if match := re.match(r"ORT_CLASS_RELEASE\((\w+)\)", entry):
        return "Release" + match[1], "void", types_of(f"Ort{match[1]}* input")
    if match := re.match(r"ORT_API_T\(([^,]+),\s*(\w+),(.*)\)", entry):
        return match[2], match[1].replace(" ", ""), types_of(match[3])
    if match := re.match(r"(.*?)\(ORT_API_CALL\s*\*\s*(\w+)\)\(([^)]*)\)", entry):
        return match[2], match[1].replace(" ", ""), types_of(match[3])
    return entry, None, None


def official_table(text):
    body = text[text.index("struct OrtApi {"):]
    body = body[body.index("{") + 1:body.index("\n};")]
    since, entries = None, []
    comment = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
    for piece in re.split(r"(/\*.*?\*/)", body, flags=re.S):
        if piece.startswith("/*"):
            match = re.search(r"\\since Version 1\.(\d+)", piece)
            since = int(match[1]) if match else None
            continue
        piece = re.sub(r"^\s*#.*$", "", comment.sub("", piece), flags=re.M)
        for entry in piece.split(";"):
            entry = " ".join(entry.split())
            if entry:
                entries.append((*declaration(entry), since))
    return entries


def our_table(text):
    version = int(re.search(r"ORT_API_VERSION_NEEDED = (\d+)", text)[1])
    rows = re.findall(r"^    X\((\d+), (\w+), ([^,]+), (.*?)\)\s*\\?$", text, re.M)
    return version, [(int(slot), name, ret.replace(" ", ""), types_of(params))
                     for slot, name, ret, params in rows]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    official = official_table(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    version, ours = our_table(OURS.read_text(encoding="utf-8"))
    faults = 0
    for slot, name, ret, types in ours:
        found = official[slot] if slot < len(official) else ("nothing", None, None, None)
        if found[:3] != (name, ret, types):
            print(f"slot {slot}: ours is {ret} {name}({', '.join(types)}), the header has {found}")
            faults += 1
        elif found[3] and found[3] > version:
            print(f"slot {slot}: {name} exists since API {found[3]}, ort_api.h asks for {version}")
            faults += 1
    print(f"{len(ours)} slots compared, {faults} differ")
    sys.exit(1 if faults or not ours else 0)


if __name__ == "__main__":
    main()
