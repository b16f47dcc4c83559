import { isIPv4, isIPv6 } from 'node:net'

/** The key of all connections from this machine. */
export const loopback = 'loopback'
/** The key of every value that is not an address. With a key for each such value there would be no bound. */
const unknown = 'unknown'

/** Addresses as proxies write them: `192.0.2.1:443`, `[2001:db8::1]:443`, `[2001:db8::1]`. */
const withPort = /^(?:([\d.]+):\d+|\[([^\]]*)\](?::\d+)?)$/

function parts (text: string): number[] {
  if (text === '') return []
  return text.split(':').flatMap(part => {
    if (!part.includes('.')) return [parseInt(part, 16)]
    const [a, b, c, d] = part.split('.').map(Number) as [number, number, number, number]
    return [a * 256 + b, c * 256 + d]
  })
}

/** The eight groups of an IPv6 address (RFC 4291 2.2). */
function groupsOf (address: string): number[] {
  const [head, tail] = address.split('%')[0]!.split('::') as [string, string?]
  const first = parts(head)
  const last = tail === undefined ? [] : parts(tail)
  return [...first, ...new Array<number>(8 - first.length - last.length).fill(0), ...last]
}

/** The IPv4 address in one of IPv6: mapped (RFC 4291 2.5.5.2), or of a translator (RFC 6052 2.1). */
function embedded (groups: number[]): string | undefined {
  const prefix = groups.slice(0, 6).map(group => group.toString(16)).join(':')
  if (prefix !== '0:0:0:0:0:ffff' && prefix !== '64:ff9b:0:0:0:0') return undefined
  return groups.slice(6).flatMap(group => [group >> 8, group & 0xff]).join('.')
}

/**
 * The key under which an address is counted. For IPv6 it is the network of 64 bits, because a single subscriber may choose any address in it. A socket
 * without an address is one of this machine.
 * @param direct - the address is the socket's own, and was not read from a header
 */
export function addressKey (address: string | undefined, direct: boolean): string {
  if (address === undefined) return loopback
  if (isIPv4(address)) return direct && address.startsWith('127.') ? loopback : address
  const found = withPort.exec(address)
  const bare = found?.[1] ?? found?.[2] ?? address
  const groups = isIPv6(bare) ? groupsOf(bare) : undefined
  const ipv4 = groups === undefined ? bare : embedded(groups)
  if (ipv4 !== undefined && !isIPv4(ipv4)) return unknown
  const isLoopback = ipv4 === undefined ? groups!.every((group, index) => group === (index === 7 ? 1 : 0)) : ipv4.startsWith('127.')
  // A forwarded header must not make a remote client count as loopback.
  if (isLoopback && direct) return loopback
  return ipv4 ?? `${groups!.slice(0, 4).map(group => group.toString(16)).join(':')}::/64`
}
