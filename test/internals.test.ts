import { readFile, readdir } from 'node:fs/promises'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import t from 'tap'
import * as internals from '../lib/internals.ts'
import { ShutdownGuard } from '../lib/server/shutdown-guard.ts'
import { UpgradeAnswer } from '../lib/api/http-answer.ts'
import { inflateWhileReading } from '../lib/transport/ws/receiver.ts'
import { createServer as createHttpServer } from 'node:http'
import { connect as connectTcp, type AddressInfo } from 'node:net'
import { createServer, connect as connectTls } from 'node:tls'
import { EventEmitter, once } from 'node:events'
import { setTimeout } from 'node:timers/promises'

const home = 'lib/internals.ts'
/** Private members whose names do not show it. */
const undocumented = ['assignSocket', 'conclude', 'decompress', 'detachSocket', 'message', 'protocol.transport.socket', 'socketOnData', 'socketOnEnd', 'unconsume']
const withoutComments = (source: string): string => source.replace(/\/\*[\s\S]*?\*\/|(?<!:)\/\/.*$/gm, '')
const source = withoutComments(await readFile(home, 'utf8'))
const named = [...new Set([...source.matchAll(/\b_[a-z]\w*|(?<=')(?:fastify|pino)\.\w+(?=')|(?<=')ws-socket(?=')/gi)].map(([name]) => name))]

t.test('docs/internals.md has a row for every private member, and no other', async t => {
  const page = await readFile('docs/internals.md', 'utf8')
  const rows = page.split('\n').filter(line => line.startsWith('| `')).map(line => line.slice(2, -2).split(' | '))
  t.ok(named.length > 15)
  t.same(rows.flatMap(([members]) => [...members!.matchAll(/`([^`]+)`/g)].map(match => match[1]!)).sort(), [...named, ...undocumented].sort())
  for (const row of rows) {
    t.equal(row.length, 3, row[0]!)
    t.match(page.split('\n- ').find(item => item.startsWith(`${row[0]!}:`)), /: [^]+\sWithout:\s/, 'each item has the reason, and the behaviour without the member')
    t.notOk(row.some(cell => cell.trim() === ''), row[0]!)
  }
})

t.test('no other file of lib names a private member of another package', async t => {
  for (const name of undocumented) t.match(source, new RegExp(`\\b${name}\\b`))
  for (const name of await readdir('lib', { recursive: true })) {
    const file = join('lib', name)
    if (!file.endsWith('.ts') || file === home) continue
    const text = withoutComments(await readFile(file, 'utf8'))
    for (const member of [...named, ...undocumented.filter(name => name !== 'message')]) t.notMatch(text, new RegExp(`(?<![\\w-])${member.replace('.', '\\.')}(?![\\w-])`), `${member} in ${file}`)
    t.notMatch(text, /\._[a-z]|getOwnPropertySymbols|Symbol\.for\('(?!fastify-rooms\.)|receiver\.(?:on|emit)\(/, file)
  }
})

t.test('a WebSocket without the members of ws has no receiver, no stream and no compression', async t => {
  for (const socket of [{}, { _receiver: {}, _extensions: {} }, { _receiver: null, _extensions: { 'permessage-deflate': { params: null } } }]) {
    t.equal(internals.receiverOf(socket), undefined)
    t.equal(internals.streamOf(socket), undefined)
    t.same(internals.deflateParameters(socket), {})
  }
  const stream = new Writable()
  t.equal(internals.receiverOf({ _receiver: stream }), stream)
})

t.test('a receiver without decompress is left unchanged', async t => {
  const receiver = new Writable() as unknown as internals.Receiver
  const { end } = receiver
  inflateWhileReading(receiver, {} as never)
  t.equal(receiver.end, end)
  t.notOk('decompress' in receiver)
})

t.test('without the handle of a socket no bytes count as unsent', async t => {
  for (const socket of [{}, { _handle: null }, { _handle: {} }, { _parent: null }, { _parent: {} }]) t.equal(internals.unsentOf(socket as Socket), 0)
  t.equal(internals.unsentOf({ _handle: { writeQueueSize: 3 } } as unknown as Socket), 3)
  t.equal(internals.unsentOf({ _handle: { writeQueueSize: 3 }, _parent: { _handle: { writeQueueSize: 4 } } } as unknown as Socket), 4)
})

t.test('the response that a connection waits for is found and detached', async t => {
  t.equal(internals.showsAnswers(), true)
  const socket = new Socket()
  const answer = new ServerResponse(new IncomingMessage(socket))
  answer.assignSocket(socket)
  t.equal(internals.answerOn(socket), answer)
  internals.detachAnswer(socket)
  t.equal(internals.answerOn(socket), undefined)
  internals.detachAnswer(socket)
  internals.detachAnswer({ _httpMessage: {} } as never)
  const own = new ServerResponse(new IncomingMessage(socket))
  internals.replaceAnswer(socket, own)
  t.equal(internals.answerOn(socket), undefined, 'an answer that is not on the connection is not replaced')
  own.assignSocket(socket)
  internals.endAnswer(socket)
  t.equal(internals.answerOn(socket), own, 'nor does an answer end that was not')
  internals.replaceAnswer(socket, own)
  t.equal(own.socket, null)
  t.match(internals.answerOn(socket), { writableEnded: false, headersSent: false }, 'another answer holds its place')
  internals.endAnswer(socket)
  t.equal(internals.answerOn(socket), undefined)
  const unknown = { _httpMessage: {} as ServerResponse }
  internals.replaceAnswer(unknown as never, unknown._httpMessage)
  t.equal(internals.answerOn(unknown as never), unknown._httpMessage, 'nor one without the method that frees it')
})

t.test('without the symbols of pino, Fastify or @fastify/websocket nothing is found', async t => {
  const request = new IncomingMessage(new Socket())
  const finders: [(object: any) => unknown, string, unknown][] = [
    [internals.fastifyOptions, 'fastify.options', undefined],
    [internals.fastifyServers, 'fastify.serverBindings', undefined],
    [internals.pinoMessageKey, 'pino.messageKey', undefined],
    [internals.isTakenUpgrade, 'ws-socket', false]
  ]
  for (const [find, name, nothing] of finders) {
    for (const object of [{}, Object.create(null), request, { [Symbol('other')]: 1, [name]: 1 }]) t.equal(find(object), nothing, name)
    t.equal(find(Object.create({ [Symbol(name)]: 'found' })), nothing === false ? true : 'found')
  }
  t.equal(internals.pinoSerializers({}), undefined)
  t.equal(internals.pinoSerializers({ [Symbol.for('pino.serializers')]: 1 }), 1)
})

t.test('without assignSocket no response of a connection is looked up', async t => {
  const { assignSocket } = ServerResponse.prototype
  t.teardown(() => { ServerResponse.prototype.assignSocket = assignSocket })
  Reflect.deleteProperty(ServerResponse.prototype, 'assignSocket')
  t.equal(internals.showsAnswers(), false)
})

/** Hides a member of all sockets during a test. */
function hide (t: { teardown (undo: () => void): unknown }, member: string): void {
  Object.defineProperty(Socket.prototype, member, { get () { return undefined }, set () {}, configurable: true })
  t.teardown(() => { Reflect.deleteProperty(Socket.prototype, member) })
}

t.test('without _httpMessage a closing server cuts no connection that may wait for a response, and inject reads no refusal', async t => {
  hide(t, '_httpMessage')
  t.equal(internals.showsAnswers(), false)
  const server = Object.assign(new EventEmitter(), { listening: true })
  const guard = new ShutdownGuard(server, 1_000, 1_000)
  const socket = new Socket()
  t.teardown(() => { socket.destroy() })
  server.emit('connection', socket)
  guard.beginShutdown()
  await setTimeout(350)
  t.equal(socket.destroyed, false)
  server.emit('close')

  const upgrades = new EventEmitter()
  const answer = new UpgradeAnswer()
  answer.watch([upgrades], () => true, () => { upgrades.emit('upgrade', {}, new PassThrough()) })
  t.equal(await answer.body(1), undefined)
})

t.test('without _parent a closing server cuts no connection over TLS', async t => {
  const key = Buffer.from('of the tests alone')
  const tls = { ciphers: 'PSK-AES128-GCM-SHA256', maxVersion: 'TLSv1.2', pskCallback: () => key } as const
  const server = createServer(tls)
  const guard = new ShutdownGuard(server, 1_000, 1_000)
  let below: unknown
  let found: unknown
  server.prependListener('secureConnection', socket => {
    below = internals.socketBelow(socket)
    Object.assign(socket, { _parent: undefined })
    found = internals.socketBelow(socket)
  })
  server.on('secureConnection', socket => { Object.assign(socket, { _parent: below }) })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const client = connectTls({ ...tls, host: '127.0.0.1', port, pskCallback: () => ({ psk: key, identity: 'test' }), checkServerIdentity: () => undefined })
  const [[secured]] = await Promise.all([once(server, 'secureConnection'), once(client, 'secureConnect')])
  client.on('error', () => {})
  t.ok(below)
  t.equal(found, undefined)
  // The response continues, so that the connection is not idle.
  const response = new ServerResponse(new IncomingMessage(secured as Socket))
  response.assignSocket(secured as Socket)
  server.close()
  guard.beginShutdown()
  await setTimeout(350)
  t.equal((secured as Socket).destroyed, false)
  t.equal(client.destroyed, false)
  client.destroy()
  await once(server, 'close')
})

t.test('the parser of a connection is freed: its bytes are discarded, and its end is answered', async t => {
  const server = createHttpServer((_request, response) => {
    response.writeHead(200).flushHeaders()
    setImmediate(() => {
      internals.freeParser(response.socket!)
      internals.freeParser(response.socket!)
      response.socket!.write('freed')
    })
  })
  t.teardown(() => { server.close() })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connectTcp((server.address() as AddressInfo).port, '127.0.0.1')
  let text = ''
  client.on('data', chunk => { text += String(chunk) })
  const request = 'GET / HTTP/1.1\r\nhost: a\r\n\r\n'
  client.write(request)
  while (!text.endsWith('freed')) await once(client, 'data')
  for (let count = 0; count < 10; count++) client.write(`${request}no request`)
  client.end()
  await once(client, 'close')
  t.equal(text.match(/HTTP/g)!.length, 1)
})

t.test('a parser that is not known is left alone', async t => {
  const parser = { unconsume: () => { t.fail() }, remove: () => {}, close: () => {} }
  const holders = [{}, { parser: null }, { parser: {} }, { parser: { ...parser, close: undefined } }, { parser }]
  for (const holder of holders) {
    const socket = Object.assign(new Socket(), holder)
    internals.freeParser(socket)
    t.match(socket, holder)
  }
  const gone = Object.assign(new Socket(), { parser })
  gone.destroy()
  internals.freeParser(gone)
})

t.test('a Sentinel client without a way to its primary has none', async t => {
  t.equal(await internals.sentinelPrimary({}), undefined)
  const primary = {}
  t.equal(await internals.sentinelPrimary({ _execute: (_isReadonly: boolean, use: (client: object) => unknown) => use(primary) }), primary)
})

t.test('a NATS connection without a socket is left as it is, and a socket of TLS is ended without a reset', async t => {
  const calls: string[] = []
  for (const connection of [{}, { protocol: null }, { protocol: { transport: {} } }]) internals.endNatsSocket(connection)
  const destroy = (): void => { calls.push('destroy') }
  internals.endNatsSocket({ protocol: { transport: { socket: { resetAndDestroy () { calls.push('reset') }, destroy } } } })
  internals.endNatsSocket({ protocol: { transport: { socket: { resetAndDestroy () { throw new TypeError('not TCP') }, destroy } } } })
  internals.endNatsSocket({ protocol: { transport: { socket: { writableEnded: true, resetAndDestroy () { calls.push('reset') }, destroy } } } })
  t.same(calls, ['reset', 'destroy', 'destroy', 'destroy'])
})

t.test('the socket of a NATS connection that is closing is closed, and not reset', async t => {
  const server = createHttpServer().on('connection', socket => { socket.pause() }).listen(0, '127.0.0.1')
  t.teardown(() => { server.close().closeAllConnections() })
  await once(server, 'listening')
  const socket = connectTcp((server.address() as AddressInfo).port, '127.0.0.1')
  await once(socket, 'connect')
  socket.end()
  internals.endNatsSocket({ protocol: { transport: { socket } } })
  await t.resolves(once(socket, 'close'), 'and has no error, such as that of a reset')
})
