import type { Test } from 'tap'
import type { StreamRun } from '../../types/index.ts'
import { connect, createRooms, join, listen, until, type AnyOptions, type Client, type LogLine } from './app.ts'
import { SlowBroker } from './slow-broker.ts'

/** A broker that answers two turns of the event loop later. */
export function slowBroker (): SlowBroker {
  return new SlowBroker(async () => { for (let turn = 0; turn < 2; turn++) await new Promise(resolve => setImmediate(resolve)) })
}

/** An app with a family of streams, and a plain topic. */
export async function serveStreams (t: Test, options: AnyOptions = {}, topic: object = {}, logs: LogLine[] = []) {
  const app = await createRooms(t, { topics: { 'run:*': { stream: true, ...topic } as never, plain: { history: true }, bare: {} }, ...options }, logs)
  const rooms = app.rooms as any
  const url = await listen(app)
  const claim = (name = 'run:1'): Promise<StreamRun<any>> => rooms.stream(name)
  const get = async (query = '', name = 'run:1'): Promise<any> => (await fetch(`http://${url}/rooms/${name}${query}`)).json()
  return { app, rooms, url, claim, get }
}

/** A reader of a stream, with hello and the rest of what it was sent. */
export async function reader (t: Test, url: string, query = '', name = 'run:1') {
  const client = await join(t, `${url}/rooms/${name}${query}`)
  return Object.assign(client, { rest: () => rest(client) })
}

/** A reader in raw mode. */
export async function rawReader (t: Test, url: string, query = '', name = 'run:1'): Promise<Client> {
  return connect(t, `${url}/rooms/${name}${query}`, 'rooms.raw')
}

/** The frames that a client was sent after hello until it was closed: payloads of messages, and all other frames as they are. */
export async function rest (client: Client): Promise<unknown[]> {
  await client.closed
  return client.received.slice(1).map(text => JSON.parse(text)).map(frame => frame.type === 'message' ? frame.data : frame)
}

/** Settles when a topic has so many members. */
export async function members (rooms: any, count: number, name = 'run:1'): Promise<void> {
  await until(async () => await rooms.count(name, { local: true }) === count)
}
