/** Close codes (RFC 6455 7.4.1) by the error of ws. Any other violation is 1002. */
const codes: Readonly<Record<string, number>> = {
  WS_ERR_INVALID_UTF8: 1007,
  WS_ERR_TOO_MANY_BUFFERED_PARTS: 1008,
  WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: 1009,
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 1009
}

/** Returns the close code with which ws answers a violation of the peer; `undefined` if the connection broke. */
export function violationCode ({ code = '' }: Error & { code?: string }): number | undefined {
  // A payload that does not inflate is inconsistent data, and the error is that of zlib.
  if (code.startsWith('Z_')) return 1007
  return code.startsWith('WS_ERR_') ? codes[code] ?? 1002 : undefined
}
