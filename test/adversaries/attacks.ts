import { setTimeout as sleep } from 'node:timers/promises'
import { compressedClientFrame } from '../helpers/wire.ts'
import { random } from '../helpers/random.ts'
import { Mutations } from './mutations.ts'
import { RawPeer, shaped } from './peer.ts'
import { tolerated, violations, type Violation } from './violations.ts'

/** The address of the server. */
export interface Place { port: number }

/** Records a fault. */
export type Complain = (text: string) => void

const agreed = 'sec-websocket-extensions: permessage-deflate\r\n'

/** Runs a job for each item, several at a time. */
export async function each<T> (items: Iterable<T>, width: number, job: (item: T) => Promise<void>): Promise<void> {
  const iterator = items[Symbol.iterator]()
  const work = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) await job(next.value)
  }
  await Promise.all(Array.from({ length: width }, work))
}

export const range = (count: number): number[] => Array.from({ length: count }, (_, n) => n)

/** Sends each violation, and expects the close code that the RFC assigns to it. */
export async function violate ({ port }: Place, complain: Complain, which: Violation[] = violations): Promise<void> {
  await each(which, 4, async ({ name, bytes, code, deflated }) => {
    const peer = await RawPeer.join(port, '/lobby/attacked', deflated ? agreed : '')
    peer.write(bytes)
    await peer.until(() => peer.closeCode !== undefined || peer.over, `closed for ${name}`)
    if (peer.closeCode !== code) complain(`${name}: closed with ${peer.closeCode} instead of ${code}`)
    peer.destroy()
  })
}

/** Sends frames that are unusual but valid, and expects that they are taken. */
export async function stretch ({ port }: Place, complain: Complain): Promise<void> {
  await each(tolerated, 4, async ({ name, bytes }) => {
    const peer = await RawPeer.join(port, '/lobby/attacked')
    peer.write(bytes)
    await peer.until(() => peer.closeCode !== undefined || peer.over || peer.saidSince(0).some(({ type, ref }) => type === 'ack' && ref === 'p'), `answered ${name}`)
    if (peer.closeCode !== undefined) complain(`${name}: closed with ${peer.closeCode}`)
    peer.destroy()
  })
}

/** Sends frames behind a close frame, and expects that they are ignored. */
export async function talkAfterClose ({ port }: Place, complain: Complain): Promise<void> {
  const peer = await RawPeer.join(port, '/lobby/attacked')
  await peer.until(() => peer.frames.length > 0, 'greeted')
  peer.write(Buffer.concat([shaped(Buffer.of(3, 232), { opcode: 8 }), shaped('{"type":"ping","ref":"late"}'), shaped('', { rsv: 7 }), Buffer.alloc(100_000, 0xff)]))
  await peer.until(() => peer.over, 'closed')
  if (peer.closeCode !== 1000) complain(`closed with ${peer.closeCode} after its own close`)
  if (peer.saidSince(0).some(({ ref }) => ref === 'late')) complain('a frame behind the close frame was answered')
}

/** Sends compressed frames with mutated ones behind them, in several segments, so that frames arrive while others are inflated. */
export async function tatter ({ port }: Place, seed: number, connections: number): Promise<void> {
  const sound = compressedClientFrame(JSON.stringify({ type: 'ping', ref: 'a'.repeat(60) }))
  await each(range(connections), 8, async number => {
    const draw = random(seed * 1_000_003 + number)
    const mutations = new Mutations(draw)
    const peer = await RawPeer.join(port, '/lobby/attacked', agreed)
    for (let n = 0; n < 6 && !peer.over; n++) {
      const mutated = mutations.next('nobody')
      if (draw() < 0.5) mutated[0]! |= 0x40
      const at = Math.floor(draw() * mutated.length)
      for (const bytes of [Buffer.concat([...range(20).map(() => sound), mutated.subarray(0, at)]), mutated.subarray(at), sound]) {
        peer.write(bytes)
        await sleep(1)
      }
    }
    peer.destroy()
  })
}

const deep = (count: number, open = '[', close = ']'): string => open.repeat(count) + close.repeat(count)
const many = (count: number, item: string): string => `[${Array.from({ length: count }, () => item).join(',')}]`
const accepted = 'ok'

/** Hostile JSON, as `data`, and its answer in the open lobby. */
export const bombs: [name: string, data: string, answer: string][] = [
  ['arrays as deep as a frame allows', deep(32_000), 'FST_ROOMS_INVALID_PAYLOAD'],
  ['objects as deep as a frame allows', `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`, 'FST_ROOMS_INVALID_PAYLOAD'],
  ['arrays deeper than a frame allows', deep(50_000), 'FST_ROOMS_FRAME_TOO_LARGE'],
  ['100,000 levels of arrays', deep(100_000), '1009'],
  ['as many empty arrays as a frame can hold', many(21_000, '[]'), accepted],
  ['as many empty objects as a frame can hold', many(21_000, '{}'), accepted],
  ['as many zeros as a frame can hold', many(32_000, '0'), accepted],
  ['a number of 60,000 digits', '9'.repeat(60_000), accepted],
  ['1e999', '1e999', accepted],
  ['-1e-999', '-1e-999', accepted],
  ['a key of 60,000 characters', `{"${'k'.repeat(60_000)}":1}`, accepted],
  ['5,000 keys', `{${range(5_000).map(n => `"${n}":0`).join()}}`, accepted],
  ['10,000 equal keys', `{${many(10_000, '"k":0').slice(1, -1)}}`, accepted],
  ['keys of numbers that would make a sparse array', '{"4294967294":1,"4294967295":2,"-0":3,"length":4}', accepted],
  ['a lone surrogate', '"\\ud800"', accepted],
  ['a key that is a lone surrogate', '{"\\udfff":1}', accepted],
  ['zero bytes and controls', '"\\u0000\\u001f\\u007f"', accepted],
  ['line separators', '"\u2028\u2029"', accepted],
  ['__proto__', '{"__proto__":{"polluted":true}}', 'FST_ROOMS_BAD_FRAME'],
  ['__proto__ in escapes', '{"\\u005f\\u005fproto\\u005f\\u005f":{"polluted":true}}', 'FST_ROOMS_BAD_FRAME'],
  ['__proto__ that is null', '[[{"__proto__":null}]]', 'FST_ROOMS_BAD_FRAME'],
  ['constructor.prototype', '{"constructor":{"prototype":{"polluted":true}}}', 'FST_ROOMS_BAD_FRAME'],
  ['a constructor that is not a function', '{"constructor":"of bridges"}', accepted],
  ['members that JavaScript would call', '{"toJSON":1,"toString":2,"valueOf":3,"then":4,"hasOwnProperty":5}', accepted],
  ['a tree of a recursive schema, as deep as a frame allows', `${'{"kids":['.repeat(5_000)}${']}'.repeat(5_000)}`, 'FST_ROOMS_INVALID_PAYLOAD']
]

/** The answers to a member between a frame and the ack of the ping after it. */
async function answerTo (peer: RawPeer, frame: string, name: string): Promise<string> {
  const before = peer.frames.length
  const heard = (): any[] => peer.saidSince(before).filter(({ type }) => type === 'ack' || type === 'error')
  peer.write(Buffer.concat([shaped(frame), shaped('{"type":"ping","ref":"after"}')]))
  await peer.until(() => peer.closeCode !== undefined || peer.over || heard().at(-1)?.ref === 'after', `answered ${name}`)
  if (peer.closeCode !== undefined) return String(peer.closeCode)
  const [answer] = heard()
  return answer.ok ? accepted : answer.error.code
}

/** Sends bombs in each frame that carries JSON of a member, and in the body of a broadcast. */
export async function bomb ({ port }: Place, complain: Complain): Promise<void> {
  await each(bombs, 2, async ([name, data, answer]) => {
    const peer = await RawPeer.join(port, '/lobby/attacked')
    await peer.until(() => peer.frames.length > 0, 'greeted')
    const [{ session }] = peer.saidSince(0)
    const frames = [
      ['message', `{"ref":1,"type":"message","data":${data}}`],
      ['direct', `{"ref":2,"type":"direct","to":"${session}","data":${data}}`],
      ['ping', `{"ref":3,"type":"ping","more":${data}}`]
    ] as const
    for (const [type, frame] of frames) {
      const heard = await answerTo(peer, frame, `${name} in ${type}`)
      const expected = type === 'ping' && answer === 'FST_ROOMS_INVALID_PAYLOAD' ? accepted : answer
      if (heard !== expected) complain(`${name} in ${type}: ${heard} instead of ${expected}`)
      if (heard === '1009') break
    }
    peer.destroy()
    const { status } = await post(port, '/lobby/attacked', data)
    const expected = data.length > 65_536 ? 413 : answer === accepted ? 200 : 400
    if (status !== expected) complain(`${name} in a body: ${status} instead of ${expected}`)
  })
  // A typed topic takes or refuses them without harm.
  const peer = await RawPeer.join(port, '/typed/tree')
  for (const [name, data] of bombs.filter(([,, answer]) => answer !== '1009')) {
    const heard = await answerTo(peer, `{"ref":1,"type":"message","data":${data}}`, name)
    if (!/^FST_ROOMS_(?:INVALID_PAYLOAD|BAD_FRAME|FRAME_TOO_LARGE)$/.test(heard)) complain(`${name} by a schema: ${heard}`)
    const info = await answerTo(peer, `{"ref":1,"type":"presence","info":${data}}`, name)
    if (!/^FST_ROOMS_(?:INVALID_PAYLOAD|BAD_FRAME|FRAME_TOO_LARGE)$/.test(info)) complain(`${name} as presence info: ${info}`)
    const { status } = await post(port, '/typed/tree', data)
    if (status !== 400 && status !== 413) complain(`${name} in a typed body: ${status}`)
  }
  peer.destroy()
}

async function post (port: number, path: string, body: string): Promise<{ status: number, body: any }> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  return { status: response.status, body: await response.json() }
}

/** Upgrade requests that arrive byte by byte and never end; the peers disconnect before the deadline. */
export async function dawdle ({ port }: Place, count: number): Promise<void> {
  const slow: RawPeer[] = []
  await each(range(count), 50, async n => {
    const peer = await RawPeer.connect(port)
    peer.write(peer.upgrade('/lobby/attacked').slice(0, 1 + n % 160))
    slow.push(peer)
  })
  for (let round = 0; round < 10; round++) {
    for (const peer of slow) peer.write('x')
    await sleep(20)
  }
  for (const [n, peer] of slow.entries()) if (n % 2 === 0) peer.destroy(); else peer.socket.resetAndDestroy()
}

/** Connections that end at any point of the handshake and after it, in various ways. */
export async function comeAndGo ({ port }: Place, count: number): Promise<void> {
  await each(range(count), 30, async n => {
    const peer = await RawPeer.connect(port)
    const head = peer.upgrade(`/lobby/${n % 3 === 0 ? 'attacked' : `gone-${n}`}?presence=1`)
    const ways = [
      () => {},
      () => { peer.write(head.slice(0, 50)) },
      () => { peer.write(head) },
      async () => {
        peer.write(head)
        await peer.until(() => peer.status !== undefined || peer.over, 'answered')
      },
      async () => {
        peer.write(head + shaped('{"type":"message","data":"with the request"}').toString('latin1'))
        await peer.until(() => peer.frames.length > 0 || peer.over, 'greeted')
        peer.write(shaped('', { opcode: 8 }))
      }
    ]
    await ways[n % ways.length]!()
    if (n % 2 === 0) peer.destroy()
    else peer.socket.resetAndDestroy()
  })
}

/** Sends as many frames as possible, of each kind that causes work. A closed peer must get the reason. */
export async function flood ({ port }: Place, complain: Complain, count: number): Promise<void> {
  const kinds: [name: string, frame: Buffer, codes: number[]][] = [
    ['pings of WebSocket', shaped('x', { opcode: 9 }), [4101]],
    ['pongs of WebSocket', shaped('x', { opcode: 10 }), [4101]],
    ['pings', shaped('{"type":"ping","ref":1}'), [4101]],
    ['messages', shaped('{"type":"message","data":1,"ref":1}'), [4101]],
    ['private messages to nobody', shaped('{"type":"direct","to":"nobody","data":1}'), [4101]],
    ['answers to no request', shaped('{"type":"ack","ref":1,"data":1}'), [4101]],
    ['requests of the presence list', shaped('{"type":"presence"}'), [4101]],
    ['new presence info', shaped('{"type":"presence","info":{"n":1}}'), [4101]],
    ['bad frames', shaped('{'), [4000]],
    ['binary frames', shaped('{}', { opcode: 2 }), [4000]],
    ['frames that are too large', shaped('x'.repeat(70_000)), [4101]],
    ['closes', shaped(Buffer.of(3, 232), { opcode: 8 }), [1000]]
  ]
  await each(kinds, 3, async ([name, frame, codes]) => {
    for (const mode of ['rooms.v1', 'rooms.raw']) {
      const peer = await RawPeer.join(port, '/lobby/attacked', `sec-websocket-protocol: ${mode}\r\n`)
      const load = Buffer.concat(Array.from({ length: 100 }, () => frame))
      for (let n = 0; n < count / 100 && !peer.over && peer.closeCode === undefined; n++) {
        peer.write(load)
        // Reads as fast as it writes, because the attack is the flood, not slow reading.
        await peer.until(() => peer.over || !peer.socket.writableNeedDrain, `done with writing ${name}`)
      }
      if (mode === 'rooms.v1') {
        // Not in rooms.raw, because the ping would be a message to all other floods.
        peer.write(shaped('{"type":"ping","ref":"over"}'))
        const isOver = (): boolean => peer.frames.findLast(({ payload }) => payload.includes('"over"')) !== undefined
        await peer.until(() => peer.over || peer.closeCode !== undefined || isOver(), `through with ${name}`)
        if (peer.closeCode !== undefined && !codes.includes(peer.closeCode)) complain(`a flood of ${name}: closed with ${peer.closeCode}`)
        if (codes[0] !== 4101 && peer.closeCode === undefined && !peer.over) complain(`a flood of ${name}: it was not closed`)
      }
      peer.destroy()
    }
  })
}

/** A topic for each connection, and broadcasts to topics without members. */
export async function explode ({ port }: Place, complain: Complain, count: number): Promise<void> {
  const peers: RawPeer[] = []
  await each(range(count), 30, async n => {
    const name = `${n}-`.padEnd(100, 'x')
    peers.push(await RawPeer.join(port, `/lobby/${name}`))
    const { status, body } = await post(port, `/lobby/${n}-nobody`, String(n))
    if (status !== 200 || body.local !== 0) complain(`a broadcast to nobody: ${status} ${JSON.stringify(body)}`)
  })
  for (const peer of peers) peer.destroy()
}

/** Upgrade requests with more or other headers, and the expected status of each. */
const heads: [name: string, path: string, headers: string, status: number][] = [
  ['1,000 subprotocols, all unknown', '/lobby/attacked', `sec-websocket-protocol: ${range(1_000).map(n => `p${n}`).join(', ')}\r\n`, 400],
  ['1,000 subprotocols, one of them known', '/lobby/attacked', `sec-websocket-protocol: ${range(1_000).map(n => `p${n}`).join(', ')}, rooms.raw\r\n`, 101],
  ['subprotocols in several headers', '/lobby/attacked', 'sec-websocket-protocol: other\r\nsec-websocket-protocol: rooms.v1\r\n', 101],
  ['the same subprotocol twice', '/lobby/attacked', 'sec-websocket-protocol: rooms.v1, rooms.v1\r\n', 101],
  ['no subprotocol at all', '/lobby/attacked', 'sec-websocket-protocol: ,,,\r\n', 400],
  ['an empty subprotocol', '/lobby/attacked', 'sec-websocket-protocol:\r\n', 400],
  ['more headers than Node.js accepts', '/lobby/attacked', `cookie: ${'c=1; '.repeat(4_000)}\r\n`, 431],
  ['1,500 cookies', '/lobby/attacked', `cookie: ${'c=1; '.repeat(1_500)}\r\n`, 101],
  ['500 headers', '/lobby/attacked', range(500).map(n => `x-${n}: 1\r\n`).join(''), 101],
  ['a second key', '/lobby/attacked', 'sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n', 400],
  ['a second version', '/lobby/attacked', 'sec-websocket-version: 8\r\n', 400],
  ['two origins', '/lobby/attacked', 'origin: http://one.example\r\norigin: http://two.example\r\n', 403],
  ['an origin that is not a URL', '/lobby/attacked', 'origin: \u00ff%%%\r\n', 403],
  ['extensions that do not parse', '/lobby/attacked', 'sec-websocket-extensions: permessage-deflate; =;;\r\n', 400],
  ['1,000 offers of compression', '/lobby/attacked', `sec-websocket-extensions: ${range(300).map(() => 'permessage-deflate').join(', ')}\r\n`, 101],
  ['a compression window that does not exist', '/lobby/attacked', 'sec-websocket-extensions: permessage-deflate; server_max_window_bits=99\r\n', 400],
  ['a since that is not valid', '/lobby/attacked?since=yesterday', '', 400],
  ['a since twice', '/lobby/attacked?since=0&since=0', '', 400],
  ['a since as an object', '/lobby/attacked?since[a]=0', '', 101],
  ['a since with a huge offset', `/lobby/attacked?since=aaaaaaaaaaaaaaaa-${'9'.repeat(16)}`, '', 400],
  ['a since of another epoch', '/lobby/attacked?since=aaaaaaaaaaaaaaaa-999999999999999', '', 101],
  ['a since of 5,000 characters', `/lobby/attacked?since=${'a'.repeat(5_000)}-1`, '', 400],
  ['a presence that is not valid', '/lobby/attacked?presence=yes', '', 400],
  ['a query of __proto__', '/lobby/attacked?__proto__=1&constructor=2', '', 101],
  ['a topic that is __proto__', '/lobby/__proto__', '', 101],
  ['a topic that is constructor', '/lobby/constructor', '', 101],
  ['a topic of dots', '/lobby/..', '', 404],
  ['a topic with a slash in it', '/lobby/a%2fb', '', 400],
  ['a topic with a zero byte', '/lobby/a%00b', '', 400],
  ['a topic that does not decode', '/lobby/%zz', '', 400],
  ['a topic that is not UTF-8', '/lobby/%ff', '', 400],
  ['a topic of the longest length that the router accepts', `/lobby/${'x'.repeat(100)}`, '', 101],
  ['a topic of one character more', `/lobby/${'x'.repeat(101)}`, '', 414],
  ['a topic of 10,000 characters', `/lobby/${'x'.repeat(10_000)}`, '', 414],
  ['a topic that is not declared', '/typed/chat', '', 404],
  ['a family without a name', '/typed/chat:', '', 400],
  ['an exact name in another spelling', '/typed/tre%65', '', 101]
]

/** Malformed handshakes, each of which must get its status. */
export async function mishandshake ({ port }: Place, complain: Complain): Promise<void> {
  await each(heads, 4, async ([name, path, headers, status]) => {
    const peer = await RawPeer.connect(port)
    peer.write(peer.upgrade(path, headers))
    await peer.until(() => peer.status !== undefined || peer.over, `answered ${name}`)
    if (peer.status !== status) complain(`${name}: ${peer.status} instead of ${status}`)
    peer.destroy()
  })
  const others: [name: string, change: (head: string) => string, status: number][] = [
    ['a POST', head => head.replace('GET', 'POST'), 400],
    ['an upgrade with a body', head => head.replace('\r\n\r\n', '\r\ncontent-length: 5\r\n\r\nhello'), 101],
    ['an upgrade to something else', head => head.replace('upgrade: websocket', 'upgrade: h2c'), 400],
    ['no key', head => head.replace(/sec-websocket-key.*\r\n/, ''), 400],
    ['a key that is too short', head => head.replace(/sec-websocket-key: .*\r\n/, 'sec-websocket-key: x\r\n'), 400],
    ['another version', head => head.replace('version: 13', 'version: 12'), 400],
    ['no HTTP', () => '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 400]
  ]
  for (const [name, change, status] of others) {
    const peer = await RawPeer.connect(port)
    peer.write(change(peer.upgrade('/lobby/attacked')))
    await peer.until(() => peer.status !== undefined || peer.over, `answered ${name}`)
    if (peer.status !== status) complain(`${name}: ${peer.status} instead of ${status}`)
    peer.destroy()
  }
}
