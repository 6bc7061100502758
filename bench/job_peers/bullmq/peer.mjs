// BullMQ on ioredis (Node): producer and worker, as bench/job_peers/driver.py describes them.
//
// As its chapter on production says: `maxRetriesPerRequest: null` for the worker, an error listener, and ended jobs removed, so that
// the store does not fill.
import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'

const BODY_BYTES = 200
const BULK = 1000
const PROBE = 0
const it = JSON.parse(process.env.BENCH_JOBS)
const OPTIONS = { removeOnComplete: true }

const now = () => (performance.timeOrigin + performance.now()) / 1000
const bodyOf = (number, due = 0) =>
  `${String(number).padStart(8, '0')} ${due.toFixed(6).padStart(17, '0')} `.padEnd(BODY_BYTES, 'x')
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, Math.max(0, seconds * 1000)))
const turn = () => new Promise((resolve) => setImmediate(resolve))

async function enqueue (queue) {
  let number = 0
  const begin = performance.now()
  await Promise.all(Array.from({ length: it.in_flight }, async () => {
    while (number < it.jobs) await queue.add('job', bodyOf(++number), OPTIONS)
  }))
  return it.jobs / (performance.now() - begin) * 1000
}

async function enqueueBulk (queue) {
  const begin = performance.now()
  for (let at = 0; at < it.jobs; at += BULK) {
    const count = Math.min(BULK, it.jobs - at)
    await queue.addBulk(Array.from({ length: count }, (_, n) => ({ name: 'job', data: bodyOf(at + n + 1), opts: OPTIONS })))
  }
  return it.jobs / (performance.now() - begin) * 1000
}

async function pace (queue) {
  await queue.add('job', bodyOf(PROBE), OPTIONS)
  while (!existsSync(`${it.folder}/ready`)) await sleep(0.01)
  const begin = now() + 0.2
  const underWay = []
  for (let number = 1; number <= it.jobs; number++) {
    const due = begin + (number - 1) / it.per_second
    await sleep(due - now() - 0.002)
    while (now() < due) await turn()
    underWay.push(queue.add('job', bodyOf(number, due), OPTIONS))
  }
  await Promise.all(underWay)
  return it.per_second
}

function work () {
  const seen = new Set()
  const starts = []
  const pickups = []
  let duplicates = 0
  const job = async ({ data }) => {
    const at = now()
    const number = Number(data.slice(0, 8))
    if (number === PROBE) return writeFileSync(`${it.folder}/ready`, '')
    if (seen.has(number)) return void duplicates++
    seen.add(number)
    starts.push(at)
    pickups.push(at - Number(data.slice(9, 26)))
    if (seen.size === it.jobs) finish()
  }
  const finish = () => {
    const ordered = pickups.toSorted((a, b) => a - b)
    const span = starts.reduce((a, b) => Math.max(a, b)) - starts.reduce((a, b) => Math.min(a, b))
    writeFileSync(`${it.folder}/result.part`, JSON.stringify({
      per_second: (starts.length - 1) / span,
      p50_ms: ordered[Math.floor(ordered.length / 2)] * 1000,
      p99_ms: ordered[Math.floor(ordered.length * 99 / 100)] * 1000,
      duplicates
    }))
    renameSync(`${it.folder}/result.part`, `${it.folder}/result.json`)
  }
  const connection = new Redis(it.redis_url, { maxRetriesPerRequest: null })
  const worker = new Worker('jobs', job, { connection, concurrency: it.concurrency })
  worker.on('error', (error) => console.error(error))
  process.on('SIGTERM', async () => {
    await worker.close()
    connection.disconnect()
  })
}

if (it.task === 'work') {
  work()
} else {
  const connection = new Redis(it.redis_url)
  const queue = new Queue('jobs', { connection })
  await queue.waitUntilReady()
  const perSecond = await { enqueue, bulk: enqueueBulk, pace }[it.task](queue)
  console.log(JSON.stringify({ per_second: perSecond }))
  await queue.close()
  connection.disconnect()
}
