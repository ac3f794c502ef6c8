// Run by test_prisma_client.py with stand-ins for pg and the adapter, which are tried for real in the lab (lab/applications).
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import test from 'node:test'
import { connect, isPassing, parse, retried } from './prisma_client.mjs'

const CA = new URL('ca.crt', import.meta.url).pathname
writeFileSync(CA, 'certificate')
const uri = (places, query = `sslmode=verify-full&sslrootcert=${CA}`, login = 'app:secret') => `postgresql://${login}@${places}/shop?${query}`

test('several hosts, ports, IPv6 and encoded names are understood as libpq does', () => {
  const { hosts, options } = parse(uri('lb1:6432,[fe80::1]:6433,lb%2D3', undefined, 'b%C3%BCro:a%40%3A%2Fb+c'))
  assert.deepEqual(hosts, [
    { host: 'lb1', port: 6432 },
    { host: 'fe80::1', port: 6433 },
    { host: 'lb-3', port: 5432 },
  ])
  assert.deepEqual(options, { user: 'büro', password: 'a@:/b+c', database: 'shop', ssl: { ca: 'certificate' } })
})

test('the URL that the collection has written is understood', () => {
  const { hosts, options } = parse(process.env.GIVEN_URL)
  assert.deepEqual(hosts, JSON.parse(process.env.GIVEN_HOSTS))
  assert.deepEqual([options.user, options.password, options.database], JSON.parse(process.env.GIVEN_LOGIN))
})

test('what does not verify the server, or is no URL, is refused without the URL in the message', () => {
  for (const wrong of [undefined, '', 'mysql://a:hidden@b/c', uri('lb1', 'sslmode=require'), uri('lb1', '', 'app:hidden'), uri('lb1', 'sslmode=verify-full')]) {
    assert.throws(() => parse(wrong), (error) => /take it from database.env/.test(error.message) && !error.message.includes('hidden'))
  }
})

test('a host that does not answer is passed over, and the next connection begins where the last one ended', async () => {
  const server = createServer((socket) => socket.end()).listen(0, '127.0.0.1')
  await new Promise((ready) => server.once('listening', ready))
  const closed = createServer().listen(0, '127.0.0.1')
  await new Promise((ready) => closed.once('listening', ready))
  const [open, shut] = [server.address().port, closed.address().port]
  await new Promise((done) => closed.close(done))
  const { write } = connect(class { constructor(options) { this.options = options } }, {}, { DATABASE_URL: uri(`127.0.0.1:${shut},127.0.0.1:${open}`), DATABASE_READ_URL: uri('lb1') })
  const { Client, ...config } = write.options.adapter.config
  const first = new Client(config)
  assert.equal(first.port, shut)
  await first.connect()
  assert.equal(first.connectedTo, open)
  const second = new Client(config)
  assert.equal(second.port, open)
  await new Promise((done) => second.connect(done))
  assert.equal(second.connectedTo, open)
  await new Promise((done) => server.close(done))
  // Nobody answers: it is tried all the same, and says what the driver says.
  await assert.rejects(new Client({ ...config, refuse: true }).connect(), /refused/)
})

test('a connection of the pool has its password, which the pool hides from being copied', () => {
  const { read } = connect(class { constructor(options) { this.options = options } }, {}, { DATABASE_URL: uri('lb1'), DATABASE_READ_URL: uri('lb1') })
  const { Client, password, ...options } = read.options.adapter.config
  Object.defineProperty(options, 'password', { value: password, enumerable: false })
  assert.ok(password.length > 0)
  assert.equal(new Client(options).password, password)
})

test('connections are bounded, and options reach Prisma', () => {
  const { read } = connect(class { constructor(options) { this.options = options } }, { max: 3, log: ['warn'] }, { DATABASE_URL: uri('lb1'), DATABASE_READ_URL: uri('lb1') })
  const { max, connectionTimeoutMillis, query_timeout: answer, keepAlive } = read.options.adapter.config
  assert.deepEqual({ max, keepAlive, log: read.options.log }, { max: 3, keepAlive: true, log: ['warn'] })
  assert.ok(connectionTimeoutMillis > 0 && answer > 30000)
})

const state = (originalCode) => ({ code: 'P2039', message: '', meta: { driverAdapterError: { cause: { originalCode } } } })
const raw = (kind) => ({ code: 'P2010', message: '', meta: { driverAdapterError: { cause: { kind } } } })
test('what passes by itself is told from what does not', () => {
  const passing = [
    { code: 'P1001' }, { code: 'P1017' }, { code: 'P2028' }, { code: '57P01' }, { code: '08006' }, state('57P03'), state('08P01'), state('25006'), state('40001'),
    new Error('Connection terminated unexpectedly'), new Error('Query read timeout'), new Error('timeout exceeded when trying to connect'),
    new Error('Client has encountered a connection error and is not queryable'), raw('DatabaseNotReachable'), raw('ConnectionClosed'),
  ]
  for (const error of passing) assert.ok(isPassing(error), JSON.stringify(error) + error.message)
  const lasting = [{ code: 'P2002' }, { code: '28P01' }, state('23505'), state('42P01'), raw('TableDoesNotExist'), new Error('x is not a function'), undefined]
  for (const error of lasting) assert.ok(!isPassing(error))
})

test('work is done again until it works, and everybody hears why', async () => {
  const heard = []
  let tries = 0
  const work = async () => {
    if (++tries < 3) throw state('57P01')
    return tries
  }
  assert.equal(await retried(work, { onRetry: (error) => heard.push(error.meta.driverAdapterError.cause.originalCode) }), 3)
  assert.deepEqual(heard, ['57P01', '57P01'])
})

test('an error that stays is not tried again, and one that passes not for ever', async () => {
  let tries = 0
  const failing = (error) => async () => {
    tries += 1
    throw error
  }
  await assert.rejects(retried(failing({ code: 'P2002' })), { code: 'P2002' })
  assert.equal(tries, 1)
  await assert.rejects(retried(failing({ code: 'P1001' }), { seconds: 0.2 }), { code: 'P1001' })
  assert.ok(tries > 2)
})
