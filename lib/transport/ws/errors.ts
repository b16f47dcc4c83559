/** RFC 6455 7.4.1: the closes that are not 1002, by the error that ws answers with them. */
const codes: Readonly<Record<string, number>> = {
  WS_ERR_INVALID_UTF8: 1007,
  WS_ERR_TOO_MANY_BUFFERED_PARTS: 1008,
  WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: 1009,
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 1009
}

/** The code with which ws answers what a peer did; `undefined` where the connection just broke. */
export function violationCode ({ code = '' }: Error & { code?: string }): number | undefined {
  // What does not inflate is inconsistent data; the error is that of zlib.
  if (code.startsWith('Z_')) return 1007
  return code.startsWith('WS_ERR_') ? codes[code] ?? 1002 : undefined
}
