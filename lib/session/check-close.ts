import { FST_ROOMS_INVALID_CLOSE } from '../errors.ts'
import { closeName, isSendable, maxReasonBytes } from '../protocol/close-codes.ts'

/**
 * Checks a close of the host.
 * @param reason - default: the code's name
 * @throws FST_ROOMS_INVALID_CLOSE
 */
export function checkClose (code: number, reason: string = closeName(code)): { code: number, reason: string } {
  if (!isSendable(code)) throw new FST_ROOMS_INVALID_CLOSE('a code of 1000–1014 (not 1004–1006 or 1010) or 3000–4999')
  if (typeof reason !== 'string' || Buffer.byteLength(reason) > maxReasonBytes) throw new FST_ROOMS_INVALID_CLOSE(`a reason of at most ${maxReasonBytes} bytes`)
  return { code, reason }
}
