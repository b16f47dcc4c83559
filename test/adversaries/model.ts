/**
 * The answers to a member of the open lobby by RFC 6455 and docs/protocol.md, without any code of lib: the reference of the fuzzer. Bytes in, answers out, each
 * as one line of text.
 */

/** The defaults that limit a frame: `limits.payload`, `limits.info`, `limits.badFrames`. */
const maxFrame = 65_536
const maxInfo = 1_024
const maxBadFrames = 10

export interface Verdict {
  /** Answers to messages, in order. */
  answers: string[]
  /** Answers to pings, in order; they may overtake other answers. */
  pongs: string[]
  /** The code of the server's close frame, if one must come. */
  close: number | undefined
}

type Item = { kind: 'message', payload: Buffer, binary: boolean } | { kind: 'ping', payload: Buffer } | { kind: 'close', code: number }

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function isText (bytes: Buffer): boolean {
  try {
    utf8.decode(bytes)
    return true
  } catch {
    return false
  }
}

function closeCode (payload: Buffer): number {
  if (payload.length === 0) return 1005
  if (payload.length === 1) return 1002
  const code = payload.readUInt16BE(0)
  if (code < 1000 || code > 4999 || (code > 1014 && code < 3000) || (code >= 1004 && code <= 1006)) return 1002
  return isText(payload.subarray(2)) ? code : 1007
}

/** Frames of a client, up to the first that ends the connection; an incomplete one is left out. */
function * read (bytes: Buffer): Generator<Item> {
  let parts: Buffer[] | undefined
  let binary = false
  for (let at = 0; at + 2 <= bytes.length;) {
    const [first, second] = [bytes[at]!, bytes[at + 1]!]
    const fin = first >= 0x80
    const opcode = first & 0x0f
    const control = opcode >= 8
    const short = second & 0x7f
    const violation = (first & 0x70) !== 0 || second < 0x80 || (opcode > 2 && opcode < 8) || opcode > 10 ||
      (control && (!fin || short > 125 || (opcode === 8 && short === 1))) || (!control && (opcode === 0) !== (parts !== undefined))
    if (violation) {
      yield { kind: 'close', code: 1002 }
      return
    }
    const start = at + 2 + (short < 126 ? 0 : short === 126 ? 2 : 8)
    if (bytes.length < start) return
    const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2))
    const soFar = parts === undefined ? 0 : parts.reduce((sum, part) => sum + part.length, 0)
    if (!control && soFar + length > 2 * maxFrame) {
      yield { kind: 'close', code: 1009 }
      return
    }
    if (bytes.length < start + 4 + length) return
    const mask = bytes.subarray(start, start + 4)
    const payload = Buffer.from(bytes.subarray(start + 4, start + 4 + length).map((byte, index) => byte ^ mask[index % 4]!))
    at = start + 4 + length
    if (opcode === 8) {
      yield { kind: 'close', code: closeCode(payload) }
      return
    }
    if (opcode === 9) yield { kind: 'ping', payload }
    if (control) continue
    if (parts === undefined) {
      parts = []
      binary = opcode === 2
    }
    parts.push(payload)
    if (!fin) continue
    const message: Buffer = Buffer.concat(parts)
    parts = undefined
    if (!binary && !isText(message)) {
      yield { kind: 'close', code: 1007 }
      return
    }
    yield { kind: 'message', payload: message, binary }
  }
}

/** Whether a parser would poison a prototype with this text. */
function isPoisoned (value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (Object.hasOwn(value, '__proto__')) return true
  const own: unknown = Object.hasOwn(value, 'constructor') ? (value as { constructor: unknown }).constructor : undefined
  if (typeof own === 'object' && own !== null && Object.hasOwn(own, 'prototype')) return true
  return Object.values(value).some(isPoisoned)
}

const bad = 'FST_ROOMS_BAD_FRAME'

/** The answer to one text, or `undefined`. @param session - its own id */
function answerTo (text: string, session: string): string | undefined {
  let frame: any
  try {
    frame = JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch {
    return `error ${bad}`
  }
  if (typeof frame !== 'object' || frame === null || Array.isArray(frame) || isPoisoned(frame)) return `error ${bad}`
  const { type, ref, data, to, info, key } = frame
  const sound = typeof ref === 'string' ? ref.length >= 1 && ref.length <= 64 : Number.isSafeInteger(ref)
  if (ref !== undefined && !sound) return `error ${bad}`
  const refuse = (code: string): string => ref === undefined ? `error ${code}` : `ack ${code} ${JSON.stringify(ref)}`
  const accept = ref === undefined ? undefined : `ack ok ${JSON.stringify(ref)}`
  if (type === 'ping') return accept
  if (type === 'message') return data === undefined || (key !== undefined && !(typeof key === 'string' && key.length >= 1 && key.length <= 255)) ? refuse(bad) : accept
  if (type === 'ack') return ref === undefined ? refuse(bad) : undefined
  if (type === 'presence') return info !== undefined && Buffer.byteLength(JSON.stringify(info)) > maxInfo ? refuse('FST_ROOMS_INFO_TOO_LARGE') : accept
  if (type !== 'direct' || typeof to !== 'string' || to === '' || to === 'user:' || data === undefined) return refuse(bad)
  return to === session ? accept : refuse('FST_ROOMS_NO_SUCH_SESSION')
}

/** The topics whose rooms exist, so that a join of them is answered at once. */
const standing = ['attacked', 'calm']

/** The state of a connection of several topics. */
export interface Topics {
  readonly joined: Set<string>
  /** A topic without a room was joined, so the order of the answers is not known. */
  isLoose: boolean
}

/** The answer to one text on a connection of several topics, or `undefined`. */
function topicAnswerTo (text: string, topics: Topics): string | undefined {
  let frame: any
  try {
    frame = JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch {
    return `error - ${bad}`
  }
  if (typeof frame !== 'object' || frame === null || Array.isArray(frame) || isPoisoned(frame)) return `error - ${bad}`
  const { type, ref, topic, data, to, info, key, since, presence } = frame
  const isName = typeof topic === 'string' && /^[\w.:~-]{1,255}$/.test(topic) && topic !== '.' && topic !== '..'
  const isText = typeof topic === 'string' && topic.length >= 1 && topic.length <= 255
  const named = isName ? topic : '-'
  const sound = typeof ref === 'string' ? ref.length >= 1 && ref.length <= 64 : Number.isSafeInteger(ref)
  if (ref !== undefined && !sound) return `error ${named} ${bad}`
  const refuse = (code: string, name = topic): string => ref === undefined ? `error ${name} ${code}` : `ack ${name} ${code} ${JSON.stringify(ref)}`
  const accept = (name = topic): string | undefined => ref === undefined ? undefined : `ack ${name} ok ${JSON.stringify(ref)}`
  if (type === 'ping') return accept('-')
  const isWhole = type === 'message'
    ? data !== undefined && (key === undefined || (typeof key === 'string' && key.length >= 1 && key.length <= 255))
    : type === 'direct'
      ? typeof to === 'string' && to !== '' && to !== 'user:' && data !== undefined
      : type === 'ack' ? ref !== undefined : ['join', 'leave', 'presence'].includes(type)
  if (!isWhole || !isText) return refuse(bad, named)
  if (type === 'join') {
    if (since !== undefined && !(typeof since === 'string' && /^(?:0|latest|[\da-f]{16}-\d+)$/.test(since))) return refuse(bad, named)
    if (presence !== undefined && typeof presence !== 'boolean') return refuse(bad, named)
    if (topics.joined.has(topic)) return refuse('FST_ROOMS_ALREADY_JOINED')
    if (!isName) return `${refuse('FST_ROOMS_NO_SUCH_TOPIC')} 4004`
    topics.joined.add(topic)
    if (!standing.includes(topic)) topics.isLoose = true
    return `hello ${topic} ${JSON.stringify(ref)}`
  }
  if (!topics.joined.has(topic)) return type === 'ack' ? undefined : refuse('FST_ROOMS_NOT_JOINED')
  if (type === 'leave') topics.joined.delete(topic)
  if (type === 'ack') return undefined
  if (type === 'presence' && info !== undefined && Buffer.byteLength(JSON.stringify(info)) > maxInfo) return refuse('FST_ROOMS_INFO_TOO_LARGE')
  return type === 'direct' ? refuse('FST_ROOMS_NO_SUCH_SESSION') : accept()
}

/** The answers to a client with several topics. Changes the topics to those after the frames. */
export function judgeTopics (bytes: Buffer, topics: Topics): Verdict {
  return judgeFrames(bytes, text => topicAnswerTo(text, topics), 'error -')
}

export function judge (bytes: Buffer, session: string): Verdict {
  return judgeFrames(bytes, text => answerTo(text, session), 'error')
}

/** @param error - the answer to a frame that is not read, up to its code */
function judgeFrames (bytes: Buffer, answerOf: (text: string) => string | undefined, error: string): Verdict {
  const answers: string[] = []
  const pongs: string[] = []
  let badFrames = 0
  for (const item of read(bytes)) {
    if (item.kind === 'close') return { answers, pongs, close: item.code }
    if (item.kind === 'ping') {
      pongs.push(item.payload.toString('hex'))
      continue
    }
    if (item.payload.length > maxFrame) {
      answers.push(`${error} FST_ROOMS_FRAME_TOO_LARGE`)
      continue
    }
    const answer = item.binary ? `${error} ${bad}` : answerOf(item.payload.toString())
    if (answer !== undefined) answers.push(answer)
    badFrames = answer?.includes(bad) === true ? badFrames + 1 : 0
    if (badFrames === maxBadFrames) return { answers, pongs, close: 4000 }
  }
  return { answers, pongs, close: undefined }
}

/** One answer in the same form. */
function line ({ type, ref, ok, error }: any): string[] {
  if (type === 'error') return [`error ${error.code}`]
  return type === 'ack' ? [`ack ${ok ? 'ok' : error.code} ${JSON.stringify(ref)}`] : []
}

/** One answer on a connection of several topics. */
function topicLine ({ type, topic = '-', ref, ok, error, close }: any): string[] {
  const end = close === undefined ? '' : ` ${close}`
  if (type === 'error') return [`error ${topic} ${error.code}${end}`]
  if (type === 'ack') return [`ack ${topic} ${ok ? 'ok' : error.code} ${JSON.stringify(ref)}${end}`]
  return type === 'hello' && topic !== '-' ? [`hello ${topic} ${JSON.stringify(ref)}`] : []
}

/** The server's answers in the same form; frames that answer nothing are left out. */
export function heard (frames: { first: number, payload: Buffer }[], namesTopics = false): Verdict {
  const answers: string[] = []
  const pongs: string[] = []
  for (const { first, payload } of frames) {
    if (first === 0x88) return { answers, pongs, close: payload.length < 2 ? 1005 : payload.readUInt16BE(0) }
    if (first === 0x8a) pongs.push(payload.toString('hex'))
    if (first !== 0x81) continue
    answers.push(...(namesTopics ? topicLine : line)(JSON.parse(payload.toString())))
  }
  return { answers, pongs, close: undefined }
}
