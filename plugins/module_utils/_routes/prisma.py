# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The module with which a Node application opens Prisma clients for writing and for reading. It holds no secret: URLs come from the environment. Pure.

Prisma 7 and later with ``@prisma/adapter-pg`` on ``pg`` (node-postgres): they take libpq's parameters, but no URL with several hosts, and what a lost
connection looks like there is known by its message only, since ``pg`` gives such errors no code.
"""

from __future__ import annotations

FILE = "prisma_client.mjs"

_TEXT = r"""// Prisma clients for writing and for reading. Made by Ansible, collection freight.pg_ha; holds no secret.
//
//   import { PrismaClient } from '@prisma/client'
//   import { connect, retried } from './prisma_client.mjs'
//   const { write, read } = connect(PrismaClient)
//   await retried(() => write.booking.upsert({ where: { id }, create: { id, ...booking }, update: {} }))
//
// What is read with `read` can be a little older than what was just written. Needs @prisma/client 7, @prisma/adapter-pg 7 and pg 8.
import { readFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'

// How long opening a connection and waiting for an answer may take. A cutover lets clients wait for seconds, the loss of a host for up to half a minute.
const CONNECT_MS = 5000
const ANSWER_MS = 60000

/**
 * What a libpq URI says. Unlike JavaScript's own URL it may name several hosts, which are tried in order.
 * @param {string} uri as in database.env
 * @returns {{ hosts: { host: string, port: number }[], options: import('pg').PoolConfig }}
 */
export function parse(uri) {
  const found = /^postgres(?:ql)?:\/\/(?:([^@]*)@)?([^/?]+)\/([^?]*)(?:\?(.*))?$/.exec(uri ?? '')
  if (!found) throw new Error('The URL of the database is not given, or is no libpq URI: take it from database.env.')
  const [, login = '', places, database, query = ''] = found
  const [user, password] = login.split(':').map(decodeURIComponent)
  const hosts = places.split(',').map((place) => {
    const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(place)
    return { host: bracketed ?? decodeURIComponent(plain), port: Number(port ?? 5432) }
  })
  // Not through URLSearchParams: in a libpq URI a plus sign is a plus sign.
  const settings = Object.fromEntries(query.split('&').filter(Boolean).map((pair) => pair.split('=').map(decodeURIComponent)))
  if (settings.sslmode !== 'verify-full' || !settings.sslrootcert) {
    throw new Error('The URL of the database does not say sslmode=verify-full and sslrootcert: take it from database.env.')
  }
  return { hosts, options: { user, password, database: decodeURIComponent(database), ssl: { ca: readFileSync(settings.sslrootcert, 'utf8') } } }
}

// pg.Client knows one host. The first one that takes a connection is used, and a new client begins with the host of the one before.
function answers({ host, port }) {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port, timeout: CONNECT_MS / 4 })
    const end = (answer) => () => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', end(true)).once('timeout', end(false)).on('error', end(false))
  })
}

function clientOf(hosts) {
  let current = 0
  return class extends pg.Client {
    constructor(options) {
      // pg's pool hides the password from whoever copies its options.
      super({ ...options, password: options.password, ...hosts[current] })
    }

    async #choose() {
      for (const next of hosts.keys()) {
        const number = (current + next) % hosts.length
        if (await answers(hosts[number])) {
          current = number
          Object.assign(this, hosts[number])
          return
        }
      }
    }

    connect(done) {
      const opening = (hosts.length > 1 ? this.#choose() : Promise.resolve()).then(() => super.connect())
      return done ? void opening.then(() => done(), done) : opening
    }
  }
}

function open(PrismaClient, uri, { max = 10, ...options }) {
  const { hosts, options: place } = parse(uri)
  const timing = { connectionTimeoutMillis: CONNECT_MS, query_timeout: ANSWER_MS, keepAlive: true, keepAliveInitialDelayMillis: 10000 }
  return new PrismaClient({ ...options, adapter: new PrismaPg({ ...place, ...timing, max, Client: clientOf(hosts) }) })
}

/**
 * A client for everything and one that reads from the standbys.
 * @param PrismaClient the generated class
 * @param {{ max?: number }} [options] connections of each, and options of PrismaClient
 * @param {Record<string, string | undefined>} [environment] holds the URLs
 */
export function connect(PrismaClient, options = {}, environment = process.env) {
  return {
    write: open(PrismaClient, environment.@WRITE@, options),
    read: open(PrismaClient, environment.@READ@, options),
  }
}

// Prisma's own codes: not reached, timed out, closed, no connection free, transaction gone, conflict, too many connections.
const PASSING_PRISMA = new Set(['P1001', 'P1002', 'P1008', 'P1017', 'P2024', 'P2028', 'P2034', 'P2037'])
// What the driver's adapter says of them; a raw query's error has no other name for it (P2010 says only that it was raw).
const PASSING_KIND = new Set(['DatabaseNotReachable', 'ConnectionClosed', 'SocketTimeout', 'TooManyConnections', 'TransactionWriteConflict'])
// PostgreSQL's and PgBouncer's: connection lost, too many, server going down or coming up, a server that no longer leads, conflict, deadlock.
const PASSING_STATE = /^(?:08...|53300|57P0[1-3]|25006|40001|40P01)$/
// What pg says of a connection; it gives these no code.
const PASSING_WORDS = /^(?:Connection terminated|Client has encountered a connection error|timeout (?:exceeded|expired)|Query read timeout)/

/**
 * The SQLSTATE of an error, or Prisma's or Node's own code; "" where it has none.
 * @param {any} error
 * @returns {string}
 */
export function codeOf(error) {
  return error?.meta?.driverAdapterError?.cause?.originalCode ?? error?.cause?.originalCode ?? error?.code ?? ''
}

/**
 * Whether an error says that the database is on its way, so that the same may work a moment later.
 * @param {any} error
 */
export function isPassing(error) {
  const kind = error?.meta?.driverAdapterError?.cause?.kind ?? error?.cause?.kind
  return PASSING_PRISMA.has(error?.code) || PASSING_KIND.has(kind) || PASSING_STATE.test(codeOf(error)) || PASSING_WORDS.test(error?.message ?? '')
}

/**
 * Does something again while the database is on its way. A commit whose answer was lost may have taken effect: give rows a key of your own, and make what
 * is done such that it takes effect once however often it is done (upsert, or insert and take the key's conflict for success).
 * @template T
 * @param {() => Promise<T>} work
 * @param {{ seconds?: number, onRetry?: (error: any) => void }} [options] how long to go on, and who is told of every error
 * @returns {Promise<T>}
 */
export async function retried(work, { seconds = 60, onRetry = () => {} } = {}) {
  const end = Date.now() + seconds * 1000
  for (let pause = 50; ; pause = Math.min(1000, pause * 2)) {
    try {
      return await work()
    } catch (error) {
      if (!isPassing(error) || Date.now() + pause > end) throw error
      onRetry(error)
      await new Promise((resume) => setTimeout(resume, pause))
    }
  }
}
"""


def module_text(write_variable: str, read_variable: str) -> str:
    """The module.

    :param write_variable: environment variable of the URL for everything
    :param read_variable: environment variable of the URL for reading only
    """
    return _TEXT.replace("@WRITE@", write_variable).replace("@READ@", read_variable)
