// rate-limiter-flexible on ioredis (Node): prints the same JSON line as bench/subjects/driver.py.
// `consume` rejects with the limiter's answer when the limit is reached, and with an Error when the store fails.
import { Redis } from 'ioredis'
import { RateLimiterRedis } from 'rate-limiter-flexible'

const WARM_UP_S = 0.3
const it = JSON.parse(process.argv[2])
const client = new Redis(it.redis_url, { enableOfflineQueue: false, lazyConnect: true })
await client.connect()
const limiter = new RateLimiterRedis({ storeClient: client, points: it.rate, duration: 1, keyPrefix: it.key })

async function decide () {
  try {
    await limiter.consume('shared')
    return true
  } catch (answer) {
    if (answer instanceof Error) throw answer
    return false
  }
}

async function spin (seconds) {
  const latencies = []
  const admittedAt = []
  const first = Date.now() / 1000
  const end = performance.now() + seconds * 1000
  await Promise.all(Array.from({ length: it.in_flight }, async () => {
    let start = performance.now()
    while (start < end) {
      const admitted = await decide()
      const now = performance.now()
      latencies.push(now - start)
      if (admitted) admittedAt.push(Date.now() / 1000)
      start = now
    }
  }))
  return { latencies, admittedAt, first, last: Date.now() / 1000 }
}

if (it.start_at === 0) await spin(WARM_UP_S)
else {
  await client.ping()
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, it.start_at * 1000 - Date.now())))
}
const run = await spin(it.seconds)
run.latencies.sort((a, b) => a - b)
const at = (share) => run.latencies[Math.min(run.latencies.length - 1, Math.floor(share * run.latencies.length))]
console.log(JSON.stringify({
  decisions: run.latencies.length,
  per_second: run.latencies.length / (run.last - run.first),
  p50_ms: at(0.5),
  p99_ms: at(0.99),
  admitted: run.admittedAt.length,
  first: run.first,
  last: run.last,
  admitted_at: it.start_at === 0 ? [] : run.admittedAt
}))
client.disconnect()
