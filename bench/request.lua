-- The request that wrk sends, as many times as it can: one binary v2 inference.
--
--   wrk -s bench/request.lua URL -- HEADER_BYTES BODY_FILE [check ANSWER_BYTES TAIL_FILE]
--
-- BODY_FILE holds the JSON header (HEADER_BYTES of it) and the tensors behind it. With `check`
-- every answer is looked at in Lua: status, length, and its last bytes against TAIL_FILE ('-': not
-- compared). That costs wrk about as much as a small request costs a server, so measured runs go
-- without it; they count bad statuses and the bytes received instead (scripts/bench compares).
-- Prints one line `RESULT {...}` of JSON at the end.

local threads = {}
bad_answers = 0
first_bad = ""

local function read(path)
    local file = assert(io.open(path, "rb"))
    local data = file:read("*a")
    file:close()
    return data
end

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    wrk.method = "POST"
    wrk.body = read(args[2])
    wrk.headers["Content-Type"] = "application/octet-stream"
    wrk.headers["Inference-Header-Content-Length"] = args[1]
    if args[3] == "check" then
        local bytes = tonumber(args[4])
        local tail = args[5] ~= "-" and read(args[5]) or ""
        response = function(status, headers, body)
            if status == 200 and #body == bytes and (tail == "" or body:sub(-#tail) == tail) then
                return
            end
            bad_answers = bad_answers + 1
            if first_bad == "" then
                first_bad = ("status %d, %d bytes: %s"):format(
                    status, #body, body:sub(1, 300):gsub("[^%g ]", "."))
            end
        end
    end
end

function done(summary, latency, requests)
    local bad, text = 0, ""
    for _, thread in ipairs(threads) do
        bad = bad + (thread:get("bad_answers") or 0)
        local one = thread:get("first_bad") or ""
        if text == "" then text = one end
    end
    local e = summary.errors
    io.write(("RESULT {\"requests\": %d, \"bytes\": %d, \"us\": %d, \"p50_us\": %d, \"p99_us\": %d, " ..
        "\"errors\": %d, \"bad_answers\": %d, \"first_bad\": \"%s\"}\n"):format(
        summary.requests, summary.bytes, summary.duration, latency:percentile(50),
        latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout, bad,
        (text:gsub("[\"\\]", "'"))))
end
