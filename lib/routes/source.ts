import type { FastifyRequest } from 'fastify'
import { addressKey } from '../hub/limits/address-key.ts'

/** Where a request comes from: its address, what that is counted under, and whether it says that it was passed on, and is not believed. */
export function sourceOf (request: FastifyRequest): { address: string, source: string, forwarded: boolean } {
  const { ip, raw: { socket, headers } } = request
  // A header that is believed may say the same address; then there are more of them than the socket's own.
  const direct = ip === socket.remoteAddress && (request.ips?.length ?? 1) === 1
  return { address: ip, source: addressKey(ip, direct), forwarded: direct && (headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined) }
}
