import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { Test } from 'tap'

/** A TCP proxy in front of a server, which cuts connections, refuses them, or lets no byte through. */
export interface Proxy {
  readonly host: string
  /** Connections that were made so far. */
  readonly count: number
  /** Cuts all connections. */
  cut (): void
  /** Whether new connections are cut at once. */
  isDown: boolean
  /** Whether bytes are swallowed, in both directions. */
  isBlackhole: boolean
  /** Whether the bytes of the server are swallowed. */
  isMute: boolean
  /** Whether connections that ask for an upgrade are cut. */
  isWithoutUpgrades: boolean
  /** The server of new connections. */
  target: string
  /** Reads no more bytes of the server, or goes on: then all of them arrive. */
  pause (isPaused: boolean): void
}

/** Starts a proxy. @param target - `127.0.0.1:<port>` */
export async function startProxy (t: Test, target: string): Promise<Proxy> {
  const sockets = new Set<Socket>()
  const servers = new Set<Socket>()
  let count = 0
  const server = createServer(socket => {
    count++
    if (proxy.isDown) {
      socket.destroy()
      return
    }
    const [host, port] = proxy.target.split(':') as [string, string]
    const far = connect(Number(port), host)
    // A connection that a test leaves half open does not keep its process.
    socket.unref()
    far.unref()
    servers.add(far)
    far.on('close', () => { servers.delete(far) })
    for (const [from, to] of [[socket, far], [far, socket]] as const) {
      sockets.add(from)
      from.on('data', chunk => {
        if (proxy.isWithoutUpgrades && from === socket && /^upgrade: websocket/im.test(chunk.toString('latin1'))) from.destroy()
        else if (!proxy.isBlackhole && !(proxy.isMute && from === far)) to.write(chunk)
      })
      from.on('error', () => {})
      from.on('close', () => {
        sockets.delete(from)
        if (!proxy.isBlackhole) to.destroy()
      })
    }
  })
  server.unref()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const proxy: Proxy = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    get count () { return count },
    cut () { for (const socket of sockets) socket.destroy() },
    isDown: false,
    isBlackhole: false,
    isMute: false,
    isWithoutUpgrades: false,
    target,
    pause (isPaused) {
      for (const far of servers) {
        if (isPaused) far.pause()
        else far.resume()
      }
    }
  }
  t.teardown(() => {
    proxy.cut()
    server.close()
  })
  return proxy
}
