import type { FastifyRequest } from 'fastify'
import { addressKey } from '../limits/address-key.ts'

/** Fastify types `ip` as if each socket had an address. */
type Addressed = Omit<FastifyRequest, 'ip'> & { readonly ip: string | undefined }

/** The address of a connection through a unix socket, which has none. */
const unixAddress = 'unix'

/** Where a request comes from: its address, what that is counted under, and whether it says that it was passed on, and is not believed. */
export function sourceOf (request: FastifyRequest): { address: string, addressKey: string, isForwarded: boolean } {
  const { ip, raw: { socket, headers } } = request as Addressed
  // A header that is believed may say the same address; then there are more of them than the socket's own.
  const direct = ip === socket.remoteAddress && (request.ips?.length ?? 1) === 1
  return { address: ip ?? unixAddress, addressKey: addressKey(ip, direct), isForwarded: direct && (headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined) }
}

/** The address of a request that was refused; `undefined` if its TCP connection has gone, and the address with it. */
export function refusedAddress (request: FastifyRequest): string | undefined {
  const { ip, server } = request as Addressed
  return ip ?? (typeof server.server.address() === 'string' ? unixAddress : undefined)
}
