import { deflateRawSync } from 'node:zlib'
import { shaped } from './peer.ts'

/** Bytes that no client may send, and the close code that RFC 6455 assigns to them. */
export interface Violation {
  name: string
  bytes: Buffer
  code: number
  /** Applies only if compression was negotiated. */
  deflated?: true
}

const ping = '{"type":"ping","ref":"p"}'
const close = (code: number, reason: Buffer | string = ''): Buffer => {
  const payload = Buffer.concat([Buffer.alloc(2), Buffer.from(reason)])
  payload.writeUInt16BE(code)
  return shaped(payload, { opcode: 8 })
}
const first = (text: string | Buffer): Buffer => shaped(text, { fin: false })
const last = (text: string | Buffer): Buffer => shaped(text, { opcode: 0 })

type Row = [name: string, code: number, ...frames: Buffer[]]
const rows = <T>(values: T[], row: (value: T) => Row): Row[] => values.map(row)

const plain: Row[] = [
  ...rows([1, 2, 3, 4, 5, 6, 7], rsv => [`reserved bits ${rsv}`, 1002, shaped(ping, { rsv })]),
  ...rows([3, 4, 5, 6, 7, 11, 12, 13, 14, 15], opcode => [`the reserved opcode ${opcode}`, 1002, shaped(ping, { opcode })]),
  ...rows([1, 2, 8, 9, 10], opcode => [`an unmasked frame with opcode ${opcode}`, 1002, shaped('', { opcode, masked: false })]),
  ...rows([8, 9, 10], opcode => [`a fragmented control frame with opcode ${opcode}`, 1002, shaped('', { opcode, fin: false })]),
  ...rows([8, 9, 10], opcode => [`a control frame of 126 bytes with opcode ${opcode}`, 1002, shaped(Buffer.alloc(126), { opcode })]),
  ['a ping with a length of 64 bits', 1002, shaped('', { opcode: 9, form: 8 })],
  ['a continuation without a message', 1002, last(ping)],
  ['a continuation after a whole message', 1002, shaped(ping), last(ping)],
  ['a text inside a fragmented text', 1002, first('{"type":'), shaped(ping)],
  ['binary inside a fragmented text', 1002, first('{"type":'), shaped(ping, { opcode: 2 })],
  ['reserved bits in a continuation', 1002, first('{"type":'), shaped('"ping"}', { opcode: 0, rsv: 4 })],
  ['no UTF-8', 1007, shaped(Buffer.of(0xff))],
  ['invalid UTF-8, split over fragments', 1007, first(Buffer.from([0x22, 0xe2, 0x82])), last(Buffer.of(0x22))],
  ['an overlong slash', 1007, shaped(Buffer.of(0x22, 0xc0, 0xaf, 0x22))],
  ['half a surrogate pair', 1007, shaped(Buffer.of(0x22, 0xed, 0xa0, 0x80, 0x22))],
  ['a character above U+10FFFF', 1007, shaped(Buffer.of(0x22, 0xf4, 0x90, 0x80, 0x80, 0x22))],
  ['UTF-8 that ends too early', 1007, shaped(Buffer.of(0x22, 0xf0, 0x9f, 0x98))],
  ['a close payload of one byte', 1002, shaped(Buffer.of(3), { opcode: 8 })],
  ...rows([0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535], code => [`the close code ${code}`, 1002, close(code)]),
  ['a close reason that is not UTF-8', 1007, close(1000, Buffer.of(0xff))],
  ['a length with its highest bit set', 1009, shaped('', { length: 1n << 63n })],
  ['a length of 2^53', 1009, shaped('', { length: 1n << 53n })],
  ['a huge length, and then nothing', 1009, shaped('', { length: 1_000_000_000_000n })],
  ['a length of one byte too many, and then nothing', 1009, shaped('', { length: 131_073 })],
  ['fragments that are too large together', 1009, ...Array.from({ length: 3 }, (_, n) => shaped(Buffer.alloc(60_000, 0x20), { fin: false, opcode: n === 0 ? 1 : 0 }))],
  ['one fragment after the other, without an end', 1008, Buffer.concat([first(''), Buffer.concat(Array.from({ length: 200_000 }, () => shaped('', { opcode: 0, fin: false })))])]
]

const deflated = (payload: Buffer, shape = {}): Buffer => shaped(payload, { rsv: 4, ...shape })

export const violations: Violation[] = [
  ...plain.map(([name, code, ...frames]) => ({ name, code, bytes: Buffer.concat(frames) })),
  { name: 'compressed data that cannot be inflated', code: 1007, deflated: true, bytes: deflated(Buffer.from('this was never compressed')) },
  { name: 'compressed zeros that would fill the memory', code: 1009, deflated: true, bytes: deflated(deflateRawSync(Buffer.alloc(20_000_000))) },
  { name: 'a compressed ping', code: 1002, deflated: true, bytes: deflated(Buffer.alloc(0), { opcode: 9 }) },
  { name: 'compressed text that is not UTF-8', code: 1007, deflated: true, bytes: deflated(deflateRawSync(Buffer.of(0xff))) }
]

/** Frames that a sender should not send, but a receiver takes: RFC 6455 5.2 requires the shortest length, and ws does not enforce it. They carry a `ping` with the ref `p`. */
export const tolerated: { name: string, bytes: Buffer }[] = [
  { name: 'a length of 16 bits where 7 would do', bytes: shaped(ping, { form: 2 }) },
  { name: 'a length of 64 bits where 7 would do', bytes: shaped(ping, { form: 8 }) },
  { name: 'empty fragments', bytes: Buffer.concat([first(''), last(ping).subarray(0, 0), shaped('', { opcode: 0, fin: false }), last(ping)]) },
  { name: 'one character per fragment, pings in between', bytes: Buffer.concat([...ping].map((character, index) => Buffer.concat([shaped(character, { opcode: index === 0 ? 1 : 0, fin: index === ping.length - 1 }), shaped('x', { opcode: 9 })]))) },
  { name: 'a character split over fragments', bytes: Buffer.concat([first(Buffer.from('{"type":"ping","ref":"p","x":"\u20ac"}').subarray(0, 31)), last(Buffer.from('{"type":"ping","ref":"p","x":"\u20ac"}').subarray(31))]) }
]
