import type { FastifyRequest } from 'fastify'
import { addressKey } from '../limits/address-key.ts'

/** A request whose socket may have no address; Fastify types `ip` as if each had one. */
type Addressed = Omit<FastifyRequest, 'ip'> & { readonly ip: string | undefined }

/** The address of a connection through a unix socket, which has none. */
const unixAddress = 'unix'

/** Returns the address of a request, the key under which its limits are counted, and whether it has a proxy's headers that are not trusted. */
export function clientAddress (request: FastifyRequest): { address: string, addressKey: string, isForwarded: boolean } {
  const { ip, raw: { socket, headers } } = request as Addressed
  // A trusted header may name the address of the socket, too; then `ips` has more than one entry.
  const direct = ip === socket.remoteAddress && (request.ips?.length ?? 1) === 1
  return { address: ip ?? unixAddress, addressKey: addressKey(ip, direct), isForwarded: direct && (headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined) }
}

/** Returns the address of a refused request; `undefined` if its TCP connection is closed, because then the address is not known. */
export function refusedAddress (request: FastifyRequest): string | undefined {
  const { ip, server } = request as Addressed
  return ip ?? (typeof server.server.address() === 'string' ? unixAddress : undefined)
}
