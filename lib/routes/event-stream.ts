import { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { dropReply } from '../api/request-rooms.ts'
import { corkThisTurn } from '../server/cork.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { eventStreamPeer, type StreamedResponse } from '../transport/event-stream.ts'
import { kAccess } from '../symbols.ts'
import type { AccessContext, AccessRequest } from './access.ts'
import { connectRequest } from './connect-request.ts'
import { addVary } from './negotiation.ts'

/** Longest time that a join may keep the head of the response back, in milliseconds: until then a refusal can be the status of the response. */
const headDelay = 250

// Field names that describe the bytes of one connection (RFC 9110 7.6.1), which no response of HTTP/2 may have, and the length that a stream does not have.
const notOfStream = new Set(['content-length', 'http2-settings', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'])

/**
 * Puts the headers of the host on the response, while the request can still be refused.
 * @throws the error of the first header that cannot be sent
 */
function setHeaders (reply: FastifyReply): void {
  const { raw } = reply
  for (const [name, value] of Object.entries(reply.getHeaders())) {
    if (notOfStream.has(name)) raw.removeHeader(name)
    else if (name === 'connection') raw.setHeader(name, 'close') // without one, HTTP/1.0 would not be told that the connection ends; HTTP/2 ignores it
    else raw.setHeader(name, value as string)
  }
}

/** Returns the handler of a `GET` of a topic that asks for an event stream: the request joins the topic, as a WebSocket does. */
export function eventStreamHandler ({ hub, options }: AccessContext, definition: TopicDefinition): (request: FastifyRequest, reply: FastifyReply) => unknown {
  const { onJoin } = options
  const join = (request: FastifyRequest, reply: FastifyReply): void => {
    addVary(reply, 'Accept')
    const response = reply.raw as StreamedResponse
    const { socket, httpVersion, httpVersionMajor, headers: { 'content-length': length, 'transfer-encoding': coding } } = request.raw
    const begunAt = performance.now() - reply.elapsedTime
    setHeaders(reply)
    // The body that a GET should not have is discarded, because it would be buffered as long as the stream lives.
    if (length !== undefined || coding !== undefined) request.raw.resume()
    reply.hijack()
    dropReply(request)
    // The response and hello leave in one write if nothing in between is asynchronous.
    corkThisTurn(response.socket)
    const { transport, listen } = eventStreamPeer(response, socket, httpVersion === '1.1')
    if (!transport.isOpen) return // the client has gone while hooks ran
    // The stream is idle between messages. Node.js sets the socket's timeout again when the response has ended. An injected request has no timeout.
    if (httpVersionMajor === 1 && socket instanceof Socket) socket.setTimeout(0)
    hub.connect({
      ...connectRequest(definition, request, onJoin),
      transport,
      listen,
      begunAt
    })
    if (!transport.hasBegun) setTimeout(() => { transport.begin() }, headDelay).unref()
  }
  if (!definition.stream) return join
  return async (request, reply) => {
    const { topic, since } = (request as AccessRequest)[kAccess]
    // An EventSource comes back after the end of a stream, until it is told that nothing follows. If that cannot be known, it joins.
    const isOver = since !== undefined && await hub.endedAt(definition, topic, since).catch(() => false)
    if (isOver) return reply.code(204).header('cache-control', 'no-store').send()
    join(request, reply)
  }
}
