import { parse } from 'secure-json-parse'
import type { ClientFrame, Ref } from '../../types/index.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_FORBIDDEN, FST_ROOMS_FRAME_TOO_LARGE, FST_ROOMS_HANDLER_FAILED, FST_ROOMS_RATE_LIMITED } from '../errors.ts'
import { asError, isForPeer } from '../error-utils.ts'
import { checkFrame, goodFrame } from '../protocol/client-frames.ts'
import type { HubContext } from '../hub/context.ts'
import { isEndOf } from '../hub/end-cause.ts'
import * as events from '../hub/events.ts'
import { authenticate } from '../frames/auth.ts'
import { drawFor, goesOn, type OverRate } from './frame-rate.ts'
import { countRefusal, refusalOf } from '../limits/refusals.ts'
import type { MemberSession } from '../session/session.ts'
import { acknowledge, badFrame, closeFor, invalid, isValid, jsonOf, refuse } from '../frames/reply.ts'
import { sendDirect } from '../frames/direct.ts'
import { callHandler } from '../frames/call-handler.ts'
import { setInfo } from '../frames/presence.ts'
import { ifPermitted, proceed } from '../frames/authorize.ts'

type FrameOf<T extends ClientFrame['type']> = ClientFrame & { type: T }

// What JSON.parse would turn into a poisoned prototype is refused, as Fastify refuses it in a body.
const strict = { protoAction: 'error', constructorAction: 'error' } as const

// JSON.parse quotes what is near the fault: part of a token, it may be, on its way to the host's logs.
const excerpt = /, (?:\.\.\.)?".*$/s

/** The frame that a member's text is; `undefined` where it is none, which has been answered. */
function readFrame (hub: HubContext, session: MemberSession, text: string): ClientFrame | undefined {
  const raw = session.connection.mode === 'rooms.raw'
  let value: unknown
  try {
    value = parse(text, undefined, strict)
  } catch (error) {
    const { message } = asError(error)
    // Text that is JSON, but poisoned, is no text of the untyped kind either. JSON.parse quotes the text, but never begins so.
    const isPoisoned = message.startsWith('Object contains forbidden')
    if (raw && session.definition.publish?.schema === null && !isPoisoned) return { type: 'message', data: text }
    badFrame(hub, session, `no JSON (${message.replace(excerpt, '')})${raw || isPoisoned ? '' : goodFrame}`)
    return undefined
  }
  if (raw) return { type: 'message', data: value }
  const frame = checkFrame(value)
  if (!('fault' in frame)) return frame
  badFrame(hub, session, frame.fault, frame.ref)
  return undefined
}

function rateLimited ({ definition, source }: MemberSession, over: OverRate): Error {
  const { capacity, per } = over === 'messages' ? definition.rate : source!.rate
  return new FST_ROOMS_RATE_LIMITED(`more than ${capacity} frames in ${per} ms${over === 'messages' ? '' : ' from this address'}`)
}

/** The ref that the refusal of a frame answers to. That of an ack is one of ours. */
function refOf ({ connection, definition }: MemberSession, data: Buffer, isBinary: boolean): Ref | undefined {
  if (isBinary || connection.mode === 'rooms.raw' || data.length > definition.maxPayload) return undefined
  try {
    const frame = checkFrame(parse(data.toString(), undefined, strict))
    return 'type' in frame && frame.type === 'ack' ? undefined : frame.ref
  } catch {
    return undefined
  }
}

/** Bytes of a member. They wait for hello; answers, pings and new credentials never wait behind unfinished messages. */
export function receive (hub: HubContext, session: MemberSession, data: Buffer, isBinary: boolean): void {
  if (session.state === 'closed') return
  if (session.held !== undefined) {
    if (data.length > session.definition.maxPayload) {
      closeFor(hub, session, new FST_ROOMS_FRAME_TOO_LARGE(data.length, session.definition.maxPayload))
      return
    }
    session.held.push({ data, isBinary })
    if (session.held.length === hub.settings.limits.pending) {
      session.connection.pause()
      hub.counters.paused++
    }
    return
  }
  hub.counters.received++
  hub.counters.receivedBytes += data.length
  events.received(session, data.length)
  const over = drawFor(hub, session)
  if (over !== undefined) {
    countRefusal(hub, session, 'frame', over)
    const error = rateLimited(session, over)
    if (goesOn(session)) closeFor(hub, session, error)
    else refuse(hub, session, error, refOf(session, data, isBinary))
    return
  }
  const { maxPayload } = session.definition
  if (data.length > maxPayload) {
    invalid(hub, session, new FST_ROOMS_FRAME_TOO_LARGE(data.length, maxPayload))
    return
  }
  if (isBinary) {
    badFrame(hub, session, 'binary frames are not taken here')
    return
  }
  const frame = readFrame(hub, session, data.toString())
  if (frame === undefined) return
  session.badFrames = 0
  if (frame.type === 'ack') session.asks?.answer(frame.ref, frame.data)
  else if (frame.type === 'ping') acknowledge(session, frame.ref)
  else if (frame.type === 'auth' && hub.state === 'open') work(hub, session, frame)
  else if (hub.state === 'open' && session.inbox.push(frame)) hub.counters.paused++
}

/** A ping or a pong of the WebSocket: it counts as any frame does, but where it is one too many nothing can be answered. */
export function receiveControl (hub: HubContext, session: MemberSession): void {
  if (session.state === 'closed') return
  const over = drawFor(hub, session)
  if (over === undefined || !goesOn(session)) return
  if (session.state === 'open') countRefusal(hub, session, 'frame', over)
  closeFor(hub, session, rateLimited(session, over), over)
}

/** What came before hello. */
export function receiveHeld (hub: HubContext, session: MemberSession): void {
  const held = session.held!
  session.held = undefined
  if (session.connection.isPaused) session.connection.resume()
  if (held.length > 0) session.connection.keptWaiting(session.connection.openedAt, performance.now())
  for (const { data, isBinary } of held) receive(hub, session, data, isBinary)
}

/** Works one frame off. Never throws, never rejects. */
export function work (hub: HubContext, session: MemberSession, frame: ClientFrame): void | Promise<void> {
  try {
    const pending = dispatch(hub, session, frame)
    return pending?.catch((error: unknown) => { failed(hub, session, frame, asError(error)) })
  } catch (error) {
    failed(hub, session, frame, asError(error))
  }
}

function dispatch (hub: HubContext, session: MemberSession, frame: ClientFrame): void | Promise<void> {
  if (frame.type === 'message') return publish(hub, session, frame)
  if (frame.type === 'auth') return authenticate(hub, session, frame)
  return frame.type === 'direct' ? sendDirect(hub, session, frame) : setInfo(hub, session, frame as FrameOf<'presence'>)
}

/**
 * Handles an error that a hook threw. One that speaks to the member is its answer; any other is told to the host, and so is an invalid payload, which
 * was the host's own. The end of the session is neither: there is no member to answer.
 */
function failed (hub: HubContext, session: MemberSession, { ref }: ClientFrame, error: Error & { code?: string }): void {
  if (isEndOf(session, error)) {
    hub.fail(error, session)
    return
  }
  const own = error.code === 'FST_ROOMS_INVALID_PAYLOAD' || !isForPeer(error)
  if (own) hub.fail(error, session)
  const shown = own ? new FST_ROOMS_HANDLER_FAILED() : error
  countRefusal(hub, session, 'frame', refusalOf(shown))
  refuse(hub, session, shown, ref)
}

function publish (hub: HubContext, session: MemberSession, frame: FrameOf<'message'>): void | Promise<void> {
  const { definition, topic } = session
  if (definition.publish === null) throw new FST_ROOMS_FORBIDDEN('members may not publish here')
  if (!isValid(hub, session, definition.publish, frame.data, frame.ref)) return
  return ifPermitted(hub, { action: 'publish', topic, session, payload: frame.data, key: frame.key }, () => take(hub, session, frame))
}

/** A member's message that is valid and permitted: to the reader, to the host's handler, or to the room. */
function take (hub: HubContext, session: MemberSession, { data, ref, key }: FrameOf<'message'>): void | Promise<void> {
  if (session.dismissed) return
  if (session.claim !== undefined) return proceed(session.claim.offer(data), () => { acknowledge(session, ref) })

  const handler = hub.hooks.onMessage.get(session.key)
  if (handler !== undefined) return proceed(callHandler(hub, handler, session, data, { key }), answer => { acknowledge(session, ref, undefined, answer) })

  const json = jsonOf(hub, session, session.definition.publish!, data, ref)
  if (json === undefined) return
  return proceed(hub.publish(session.definition, session.topic, json, { signature: session.signature, from: session.id, key }), result => {
    if (!result.published) throw new FST_ROOMS_BROKER_DOWN()
    acknowledge(session, ref, result.id)
  })
}
