import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/**
 * Listens on 127.0.0.1, and leads each connection to one of the nodes, in turns. A node that does not accept connections is passed over. A real fleet has nginx,
 * HAProxy or a cloud's balancer here; no connection has to come back to the node that it was on.
 * @param ports - of the nodes, on 127.0.0.1
 */
export async function startBalancer (port: number, ports: readonly number[]): Promise<Server> {
  let turn = 0

  /** Connects to the next node that accepts. `undefined`: none does. */
  async function connectNode (): Promise<Socket | undefined> {
    const first = turn++
    for (let n = 0; n < ports.length; n++) {
      const node = connect(ports[(first + n) % ports.length]!, '127.0.0.1')
      try {
        await once(node, 'connect')
        return node
      } catch {
        node.destroy()
      }
    }
    return undefined
  }

  const server = createServer({ pauseOnConnect: true, noDelay: true }, async client => {
    client.on('error', () => {})
    const node = await connectNode()
    if (node === undefined || client.destroyed) {
      client.destroy()
      node?.destroy()
      return
    }
    node.setNoDelay()
    node.on('error', () => {})
    // A node that is killed takes its connections with it: the browser connects again, to another node.
    node.on('close', () => { client.destroy() })
    client.on('close', () => { node.destroy() })
    node.pipe(client)
    client.pipe(node)
    client.resume()
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return server
}
