/** The reaction of a client to a close. `stop`: do not reconnect. `backoff`: reconnect later. `resume`: reconnect. `renew`: reconnect with new credentials. */
export type CloseBehaviour = 'stop' | 'backoff' | 'resume' | 'renew'

/** The close codes that this package sends, with their names, which are the default reasons. */
export const closeCodes = {
  1000: 'normal',
  1001: 'going_away',
  1008: 'policy_violation',
  1009: 'too_large',
  1011: 'internal_error',
  4000: 'bad_frame',
  4001: 'unauthorized',
  4003: 'forbidden',
  4004: 'no_such_topic',
  4005: 'kicked',
  4006: 'replaced',
  4007: 'topic_closed',
  4008: 'version',
  4022: 'invalid_payload',
  4100: 'overloaded',
  4101: 'rate_limited',
  4102: 'room_full',
  4103: 'broker_down',
  4104: 'connection_limit',
  4201: 'slow',
  4202: 'position_lost',
  4203: 'heartbeat',
  4300: 'token_expired',
  4301: 'token_revoked'
} as const

/** A close code that this package sends. */
export type CloseCode = keyof typeof closeCodes

/** Returns the name of a code, which is its default reason; `''` for a code that is not one of the package's. */
export function closeName (code: number): string {
  return (closeCodes as Record<number, string>)[code] ?? ''
}

/** Returns the reaction of a client to a close code. It depends on the range of the code, so that clients do not need the table. */
export function closeBehaviour (code: number): CloseBehaviour {
  // 4000 to 4399, by hundreds; RFC 6455 and its registry name the codes 1000 to 1015.
  return ranges[Math.floor(code / 100 - 40)] ?? (/^10(0[0237-9]|10)$/.test(`${code}`) ? 'stop' : 'resume')
}

/** The reactions to 40xx, 41xx, 42xx and 43xx. */
const ranges: readonly CloseBehaviour[] = ['stop', 'backoff', 'resume', 'renew']

/** Whether a server may send a code (RFC 6455 7.4). 1004–1006 and 1015 are reserved, 1010 is for clients. */
export function isSendable (code: number): boolean {
  if (!Number.isInteger(code)) return false
  return (code >= 3000 && code <= 4999) || (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006) && code !== 1010)
}

/** Most bytes of a reason, because a control frame holds 125 bytes, two of which are the code (RFC 6455 5.5). */
export const maxReasonBytes = 123
