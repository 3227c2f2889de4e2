#!/usr/bin/env python3
"""Writes the C file that completes the server's side of the backend interface.

usage: gen_abi.py TABLE OUT_C

TABLE is src/exec/abi_table.txt. The output checks every row's prototype against
include/tis/ when it is compiled, and defines the functions whose state is `stub`:
they answer UNSUPPORTED by name, or a harmless value where the return type is not
an error. Functions whose state is `real` are defined elsewhere; a missing or a
doubled one shows when the server is linked.
"""
import sys

STATES = ("real", "stub")

HEAD = """\
/* Written by scripts/gen_abi.py from {table}; do not edit.
 *
 * Completes the server's side of the backend interface: the functions below are
 * those that backends may call but that this server does not have. */
#include "tis/backend.h"

/* Fails to compile where the table and the header disagree about a function. */
#define CHECK_PROTOTYPE(name, ret, ...)                                                 \\
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), ret(__VA_ARGS__)),    \\
                   #name ": include/tis and abi_table.txt differ")
"""

# What a stub returns when its return type is not TRITONSERVER_Error *.
SAFE_VALUES = {
    "void": None,
    "bool": "false",
    "uint32_t": "0",
    "const char *": '"<unsupported>"',
    "TRITONSERVER_DataType": "TRITONSERVER_TYPE_INVALID",
    "TRITONSERVER_Error_Code": "TRITONSERVER_ERROR_UNSUPPORTED",
    "TRITONSERVER_Parameter *": "NULL",
}


def read_table(path):
    rows = []
    with open(path, encoding="utf-8") as table:
        for number, line in enumerate(table, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            fields = [field.strip() for field in line.split("|")]
            if len(fields) != 5:
                sys.exit(f"{path}:{number}: {len(fields)} fields, expected 5: "
                         "name | return type | parameters | since | state")
            name, ret, _, _, state = fields
            state, _, reason = (part.strip() for part in state.partition(":"))
            if state not in STATES or (state == "stub") != bool(reason):
                sys.exit(f"{path}:{number}: {name}: state '{fields[4]}', expected `real` or "
                         "`stub: why`")
            fields = fields[:4] + [state, reason]
            if state == "stub" and ret != "TRITONSERVER_Error *" and ret not in SAFE_VALUES:
                sys.exit(f"{path}:{number}: {name}: no safe value known for a stub that "
                         f"returns '{ret}'; add one to SAFE_VALUES in gen_abi.py")
            rows.append(fields)
    names = [row[0] for row in rows]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        sys.exit(f"{path}: listed twice: {', '.join(doubled)}")
    return rows


def stub(name, ret, params, reason):
    space = "" if ret.endswith("*") else " "
    if ret == "TRITONSERVER_Error *":
        body = ("    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNSUPPORTED,\n"
                f'                                 "{name} is not supported by this server: "\n'
                f'                                 "{reason}");\n')
    elif SAFE_VALUES[ret] is None:
        body = ""
    else:
        body = f"    return {SAFE_VALUES[ret]};\n"
    ignored = "".join(f"    (void){p.split()[-1].lstrip('*')};\n"
                      for p in params.split(",") if p.strip() != "void")
    return f"{ret}{space}{name}({params})\n{{\n{ignored}{body}}}\n"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1])
    table, out = sys.argv[1:]
    rows = read_table(table)
    parts = [HEAD.format(table=table.split("/")[-1])]
    parts.append("\n".join(f"CHECK_PROTOTYPE({name}, {ret}, {params});"
                           for name, ret, params, *_ in rows) + "\n")
    parts += [stub(name, ret, params, reason)
              for name, ret, params, _, state, reason in rows if state == "stub"]
    with open(out, "w", encoding="utf-8") as c_file:
        c_file.write("\n".join(parts))


if __name__ == "__main__":
    main()
