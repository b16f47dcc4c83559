import type { FastifyRequest } from 'fastify'
import { addressKey } from '../hub/address-key.ts'

/** Where a request comes from: what its address is counted under, and whether it says that it was passed on, and is not believed. */
export function sourceOf ({ ip, raw: { socket, headers } }: FastifyRequest): { source: string, forwarded: boolean } {
  const direct = ip === socket.remoteAddress
  return { source: addressKey(ip, direct), forwarded: direct && (headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined) }
}
