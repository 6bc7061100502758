-- wrk: the calls of part 1. Every request is made once and sent again and again.
--
-- BENCH_PATH      path of the operation
-- BENCH_BODY      the JSON body
-- BENCH_KEYS      caller keys, separated by spaces; requests take them in turn
-- BENCH_TENANTS   how many tenants; requests take them in turn
-- BENCH_PREFER    header Prefer; empty leaves it out
-- BENCH_STATUSES  1: count answers by status. It costs the generator, so figures are taken without it.

local requests, turn, statuses = {}, 0, {}
local threads = {}

local function words(text)
    local found = {}
    for word in text:gmatch("%S+") do found[#found + 1] = word end
    return found
end

function setup(thread)
    threads[#threads + 1] = thread
end

function init()
    local keys = words(os.getenv("BENCH_KEYS"))
    local prefer = os.getenv("BENCH_PREFER") or ""
    for tenant = 1, tonumber(os.getenv("BENCH_TENANTS")) do
        requests[tenant] = wrk.format("POST", os.getenv("BENCH_PATH"), {
            ["Host"] = "gateway",
            ["Content-Type"] = "application/json",
            ["Breaker-Key"] = keys[tenant % #keys + 1],
            ["Breaker-Tenant"] = "tenant-" .. tenant,
            ["Prefer"] = prefer ~= "" and prefer or nil,
        }, os.getenv("BENCH_BODY"))
    end
end

function request()
    turn = turn % #requests + 1
    return requests[turn]
end

if os.getenv("BENCH_STATUSES") == "1" then
    function response(status)
        statuses[status] = (statuses[status] or 0) + 1
        -- As text: only plain values can be read from another thread's state.
        local parts = {}
        for code, count in pairs(statuses) do parts[#parts + 1] = code .. "=" .. count end
        seen = table.concat(parts, " ")
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\nRESULT {"calls":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"not_2xx":%d,"broken":%d,"statuses":"%s"}\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.status, errors.connect + errors.read + errors.write + errors.timeout,
        threads[1]:get("seen") or ""))
end
