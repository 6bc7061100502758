-- gcra: may this call start now? One shared limit, the store's clock, microseconds.
--
-- KEYS[1] string theoretical arrival time, us
-- ARGV    T (us per call), burst (calls)
--
-- Returns {1 or 0, retry after us}
local t = redis.call("TIME")
local now = t[1] * 1000000 + t[2]
local interval = tonumber(ARGV[1])
local tau = interval * tonumber(ARGV[2])
local tat = math.max(now, tonumber(redis.call("GET", KEYS[1]) or "0"))
local new = tat + interval
if now < new - tau then
    return { 0, string.format("%.0f", new - tau - now) }
end
redis.call("SET", KEYS[1], string.format("%.0f", new), "PX", math.ceil((new - now) / 1000) + 1)
return { 1, "0" }
