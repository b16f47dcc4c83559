import type { EventEmitter } from 'node:events'
import type { MessagePort } from 'node:worker_threads'
import type { NodeMessage } from './messages.ts'

/** A node's channel to the primary: messages arrive in order, or the channel closes. */
export interface Link {
  /** Called once. */
  open (handlers: LinkHandlers): void
  /** Sends a message. A message that cannot be sent is dropped, because `closed` tells of it. */
  send (message: NodeMessage): void
  /** Stops listening. Does not close the channel, which is the host's. */
  close (): void
}

export interface LinkHandlers {
  message (message: unknown): void
  /** The channel has closed. */
  closed (): void
}

/** The members of `process` that a link uses. */
export interface ChannelProcess extends Pick<EventEmitter, 'on' | 'off'> {
  readonly connected: boolean
  send? (message: unknown, callback: (error: Error | null) => void): boolean
}

/** The events of a channel: of a process, or of a port. */
interface Channel { on (event: string, listener: (value: any) => void): unknown, off (event: string, listener: (value: any) => void): unknown }

/** A link over a channel of events. @param closing - the event that tells of the end of the channel */
function linkOf (channel: Channel, closing: string, send: Link['send'], isClosed = (): boolean => false): Link {
  let handlers: LinkHandlers | undefined
  const message = (message: unknown): void => { handlers?.message(message) }
  const closed = (): void => { handlers?.closed() }
  return {
    open (given) {
      handlers = given
      channel.on('message', message)
      channel.on(closing, closed)
      if (isClosed()) closed()
    },
    send,
    close () {
      handlers = undefined
      channel.off('message', message)
      channel.off(closing, closed)
    }
  }
}

/** The channel of a worker of `node:cluster` to its primary. */
export function processLink (channel: ChannelProcess): Link {
  return linkOf(channel, 'disconnect', message => { if (channel.connected) channel.send!(message, () => {}) }, () => !channel.connected)
}

/** The channel of a worker thread. */
export function portLink (port: MessagePort): Link {
  return linkOf(port, 'close', message => { port.postMessage(message) })
}
