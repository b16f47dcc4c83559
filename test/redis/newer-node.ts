import { Redis } from 'ioredis'
import { decodePublication } from '../../lib/redis/codec.ts'
import { decodeControl } from '../../lib/redis/control-codec.ts'
import { portOf } from '../../lib/redis/port.ts'
import { changeScript } from '../../lib/redis/presence-scripts.ts'
import { publishScript } from '../../lib/redis/script.ts'
import type { RedisArgument, RedisPort } from '../../types/redis.ts'

type Command = readonly RedisArgument[]

/** The message of a channel with publications of a topic that keeps none. */
const withoutPosition = '1::'

function edited (bytes: Buffer, edit: (copy: Buffer) => void): Buffer {
  const copy = Buffer.from(bytes)
  edit(copy)
  return copy
}

/** Its publications, and the text of its messages to other nodes, have version 2. */
function newerContent (argument: RedisArgument): RedisArgument {
  if (!Buffer.isBuffer(argument)) return argument
  if (decodePublication('', argument) !== undefined) return edited(argument, copy => { copy[8] = 2 })
  if (argument.toString('latin1', 0, 3) === withoutPosition) return edited(argument, copy => { copy[withoutPosition.length + 8] = 2 })
  if (decodeControl(argument) !== undefined) return edited(argument, copy => { copy.write('"v":2', copy.indexOf('"v":1')) })
  return argument
}

/** The messages in which it sends publications and changes of members have version 2, and its control messages another beginning. */
function newerHead (command: Command): Command {
  const [name, sha, ...others] = command
  const source = sha === publishScript.sha ? publishScript.source.replace("'1' .. e", "'2' .. e") : sha === changeScript.sha ? changeScript.source.replace("'m1'", "'m2'") : undefined
  if (name === 'EVALSHA' && source !== undefined) return ['EVAL', source, ...others]
  return command.map(argument => {
    if (!Buffer.isBuffer(argument)) return argument
    if (argument.toString('latin1', 0, 3) === withoutPosition) return edited(argument, copy => { copy.write('2') })
    return decodeControl(argument) === undefined ? argument : edited(argument, copy => { copy.write('d') })
  })
}

/** A client of a node that reads as this version does, and writes in another version: the contents, or what is around them. */
export function newerPort (port: number, what: 'contents' | 'heads'): RedisPort {
  const real = portOf(new Redis(port, '127.0.0.1', { lazyConnect: true }))
  const newer = what === 'heads' ? newerHead : (command: Command): Command => command.map(newerContent)
  return {
    isCluster: false,
    shards: () => real.shards(),
    close: () => { real.close() },
    async connect (shard, events) {
      const connection = await real.connect(shard, events)
      return {
        send: commands => connection.send(commands.map(newer)),
        subscribe: channels => connection.subscribe(channels),
        unsubscribe: channels => connection.unsubscribe(channels),
        close: () => { connection.close() }
      }
    }
  }
}
