-- limit: one EVALSHA per call over a pool of kept-alive connections.
--
-- lua-resty-redis is not packaged by Debian, so the part of RESP that one script needs is
-- spoken here, the way that library does it: one request written, one reply read, the
-- connection given back to the pool with setkeepalive. It does less per call than the library,
-- which is to this peer's advantage.

local Limit = {}
Limit.__index = Limit

local POOL = { pool_size = 256 }
local IDLE_MS = 60000
local TIMEOUT_MS = 1000

local function hex(bytes)
    return (bytes:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

local function encode(...)
    local parts = { "*", select("#", ...), "\r\n" }
    for _, value in ipairs({ ... }) do
        value = tostring(value)
        parts[#parts + 1] = "$" .. #value .. "\r\n" .. value .. "\r\n"
    end
    return table.concat(parts)
end

function Limit.new(options)
    local file = assert(io.open(options.script, "rb"))
    local source = file:read("*a")
    file:close()
    local interval = math.ceil(1000000 / options.rate)
    local arguments = { 1, options.key, interval, options.burst }
    return setmetatable({
        host = options.host,
        port = options.port,
        -- Encoded once: a call differs from the next in nothing.
        by_hash = encode("EVALSHA", hex(ngx.sha1_bin(source)), unpack(arguments)),
        by_source = encode("EVAL", source, unpack(arguments)),
    }, Limit)
end

-- Returns the reply's numbers as {admitted, retry_after_us}, or nil and the error line.
local function read_pair(sock)
    local line, err = sock:receive()
    if not line then return nil, err end
    if line:byte() ~= 42 then return nil, line end -- "*"
    local admitted = sock:receive()
    local length = sock:receive()
    local wait = sock:receive()
    if not (admitted and length and wait) then return nil, "short reply" end
    return { admitted:sub(2), wait }
end

function Limit:check()
    local sock = ngx.socket.tcp()
    sock:settimeout(TIMEOUT_MS)
    local ok, err = sock:connect(self.host, self.port, POOL)
    if not ok then
        ngx.log(ngx.CRIT, "store: ", err)
        return ngx.exit(502)
    end
    sock:send(self.by_hash)
    local reply, why = read_pair(sock)
    if not reply and why and why:find("NOSCRIPT", 1, true) then
        sock:send(self.by_source)
        reply, why = read_pair(sock)
    end
    if not reply then
        ngx.log(ngx.CRIT, "store: ", why)
        return ngx.exit(502)
    end
    sock:setkeepalive(IDLE_MS, POOL.pool_size)
    if reply[1] ~= "1" then
        ngx.header["Retry-After"] = math.ceil(tonumber(reply[2]) / 1000000)
        return ngx.exit(429)
    end
end

return Limit
