// What a Node team would write: @fastify/rate-limit on Redis before @fastify/http-proxy.
// The Redis options are those of the plugin's own README ("connectTimeout", "maxRetriesPerRequest").
import Fastify from 'fastify'
import proxy from '@fastify/http-proxy'
import rateLimit from '@fastify/rate-limit'
import { Redis } from 'ioredis'

const { PORT, DOWNSTREAM, REDIS, RATE } = process.env

const app = Fastify()
await app.register(rateLimit, {
  max: Number(RATE),
  timeWindow: 1000,
  keyGenerator: () => 'billing.charge', // one limit of the operation, not one for each address
  redis: new Redis({ host: '127.0.0.1', port: Number(REDIS), connectTimeout: 500, maxRetriesPerRequest: 1 })
})
await app.register(proxy, { upstream: `http://127.0.0.1:${DOWNSTREAM}`, prefix: '/billing' })
await app.listen({ host: '127.0.0.1', port: Number(PORT) })
