import { isIPv4, isIPv6 } from 'node:net'

/** What all connections from this machine are counted under. */
export const loopback = 'loopback'
/** What is no address is one address: with one for each such word there would be no bound. */
const unknown = 'unknown'

/** Of what proxies write: `192.0.2.1:443`, `[2001:db8::1]:443`, `[2001:db8::1]`. */
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
  const left = parts(head)
  const right = tail === undefined ? [] : parts(tail)
  return [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right]
}

/** The IPv4 address in one of IPv6: mapped (RFC 4291 2.5.5.2), or of a translator (RFC 6052 2.1). */
function embedded (groups: number[]): string | undefined {
  const prefix = groups.slice(0, 6).map(group => group.toString(16)).join(':')
  if (prefix !== '0:0:0:0:0:ffff' && prefix !== '64:ff9b:0:0:0:0') return undefined
  return groups.slice(6).flatMap(group => [group >> 8, group & 0xff]).join('.')
}

/**
 * What an address is counted under. Of IPv6 that is a network of 64 bits: so much a single subscriber has to choose from. A socket
 * without an address is one of this machine. @param direct - it is the socket's own, and was not read from a header
 */
export function addressKey (address: string | undefined, direct: boolean): string {
  if (address === undefined) return loopback
  if (isIPv4(address)) return direct && address.startsWith('127.') ? loopback : address // as most are
  const found = withPort.exec(address)
  const bare = found?.[1] ?? found?.[2] ?? address
  const groups = isIPv6(bare) ? groupsOf(bare) : undefined
  const ipv4 = groups === undefined ? bare : embedded(groups)
  if (ipv4 !== undefined && !isIPv4(ipv4)) return unknown
  const isLoopback = ipv4 === undefined ? groups!.every((group, index) => group === (index === 7 ? 1 : 0)) : ipv4.startsWith('127.')
  // Who may write a header must not become one of us by it.
  if (isLoopback && direct) return loopback
  return ipv4 ?? `${groups!.slice(0, 4).map(group => group.toString(16)).join(':')}::/64`
}
