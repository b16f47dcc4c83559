import t from 'tap'
import { chunked, chunkedEvent, event } from '../../lib/transport/event.ts'

/** The payload of one chunk of HTTP/1.1. */
function payloadOf (chunk: string): string {
  const [, length, rest] = /^([0-9a-f]+)\r\n([^]*)\r\n$/.exec(chunk)!
  t.equal(Buffer.byteLength(rest!), Number.parseInt(length!, 16))
  return rest!
}

const cases: [string, Parameters<typeof event>, string][] = [
  ['text', ['{"a":"ü"}'], 'data: {"a":"ü"}\n\n'],
  ['text and id', ['{}', undefined, 'abc-1'], 'id: abc-1\ndata: {}\n\n'],
  ['text and bytes', ['{"a":', Buffer.from('"ü"}')], 'data: {"a":"ü"}\n\n'],
  ['all', ['{"a":', Buffer.from('"ü"}'), 'abc-2'], 'id: abc-2\ndata: {"a":"ü"}\n\n'],
  ['lines of text', ['{\n "a": 1\r}'], 'data: {  "a": 1 }\n\n'],
  ['lines of bytes', ['{"a":', Buffer.from('[\n1,\r\n"ü"]}')], 'data: {"a":[ 1,  "ü"]}\n\n'],
  ['a carriage return in bytes', ['{"a":', Buffer.from('[1,\r2]}')], 'data: {"a":[1, 2]}\n\n']
]

t.test('an event is one line of JSON, with an id if it has one', async t => {
  for (const [name, given, expected] of cases) {
    t.equal(event(...given).toString(), expected, name)
    t.equal(payloadOf(chunkedEvent(...given).toString()), expected, `${name}, in a chunk`)
  }
  t.equal(chunked(':ü\n\n'), '5\r\n:ü\n\n\r\n')
})
