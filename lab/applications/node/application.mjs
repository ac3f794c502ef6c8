// Books and reads as a web application would, through the module that role routes has written, until SIGTERM. Then it says what it went through:
//   node application.mjs <file for the account>
import { writeFileSync } from 'node:fs'
import { PrismaClient } from '@prisma/client'
import { codeOf, connect, retried } from './prisma_client.mjs'

const account = process.argv[2]
const CLIENT = 910001
const WORKERS = 4
const EVERY_MS = 25
const pause = (ms) => new Promise((resume) => setTimeout(resume, ms))
const { write, read } = connect(PrismaClient, { errorFormat: 'minimal' })

let going = true
process.once('SIGTERM', () => (going = false))

// How long nothing of a kind has worked, what had to be done again, and what failed for good.
class Account {
  last = null
  longest = { ms: 0, from: null }
  done = 0
  again = {}
  failed = {}

  count(where, error) {
    const name = codeOf(error) || error.message
    where[name] = (where[name] ?? 0) + 1
  }

  worked() {
    const now = Date.now()
    if (this.last !== null && now - this.last > this.longest.ms) this.longest = { ms: now - this.last, from: new Date(this.last).toISOString() }
    this.last = now
    this.done += 1
  }

  async run(work) {
    try {
      const result = await retried(work, { onRetry: (error) => this.count(this.again, error) })
      this.worked()
      return result
    } catch (error) {
      this.count(this.failed, error)
    }
  }

  told() {
    return { done: this.done, longest_without_ms: this.longest.ms, from: this.longest.from, again: this.again, failed: this.failed }
  }
}

let seq = BigInt(Date.now()) * 1000n
const acknowledged = new Set()
const bookings = new Account()
const readings = new Account()
const checks = new Account()

async function book() {
  while (going) {
    const key = { client: CLIENT, seq: ++seq }
    const row = { ...key, accountId: 1n, amount: 0n, note: 'application prisma' }
    // The key is ours, so that the same booking twice is one.
    const done = await bookings.run(() => write.booking.upsert({ where: { client_seq: key }, create: row, update: {} }))
    if (done) acknowledged.add(key.seq)
    await pause(EVERY_MS)
  }
}

async function look() {
  while (going) {
    await readings.run(() => read.booking.findFirst({ where: { client: CLIENT }, orderBy: { seq: 'desc' } }))
    await pause(EVERY_MS)
  }
}

// The health of who serves, as an endpoint for a load balancer or an orchestrator would ask for it.
async function check() {
  while (going) {
    await checks.run(async () => {
      const [health] = await write.$queryRaw`SELECT takes_writes FROM ha_migration.health`
      if (!health.takes_writes) throw Object.assign(new Error('it takes no writes'), { code: '25006' })
    })
    await pause(EVERY_MS)
  }
}

await Promise.all([...Array.from({ length: WORKERS }, book), look(), check()])
const rows = await retried(() => write.booking.findMany({ where: { client: CLIENT }, select: { seq: true } }))
const there = new Set(rows.map((row) => row.seq))
const lost = [...acknowledged].filter((key) => !there.has(key)).length
await retried(() => write.booking.deleteMany({ where: { client: CLIENT } }))
writeFileSync(account, JSON.stringify({ application: 'Node, Prisma 7', writes: bookings.told(), reads: readings.told(), health: checks.told(), lost }))
await Promise.all([write.$disconnect(), read.$disconnect()])
