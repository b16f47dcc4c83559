/** What a client should do after a close. */
export type CloseBehaviour = 'stop' | 'backoff' | 'resume' | 'renew'

/** Every close code that this package sends, with its name, which is the default reason. */
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

/** A close code of the catalogue. */
export type CloseCode = keyof typeof closeCodes

/** The name of a code, for its default reason; a code of the host's own has none. */
export function closeName (code: number): string {
  return (closeCodes as Record<number, string>)[code] ?? ''
}

/** What a client should do: the range says it, so that no client needs the table. */
export function closeBehaviour (code: number): CloseBehaviour {
  if (code >= 4000 && code < 4100) return 'stop'
  if (code >= 4100 && code < 4200) return 'backoff'
  if (code >= 4300 && code < 4400) return 'renew'
  if (code === 1000 || code === 1002 || code === 1003 || (code >= 1007 && code <= 1010)) return 'stop'
  return 'resume'
}

/** RFC 6455 7.4: codes that an endpoint may send. 1004–1006 and 1015 are reserved, 1010 is for clients. */
export function isSendable (code: number): boolean {
  if (!Number.isInteger(code)) return false
  return (code >= 3000 && code <= 4999) || (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006) && code !== 1010)
}

/** RFC 6455 5.5: a control frame holds 125 bytes, two of which are the code. */
export const maxReasonBytes = 123
