// Events of an event stream (HTML Standard 9.2.6), bare or as one chunk of HTTP/1.1 (RFC 9112 7.1) each.

const lineEnd = 0x0a
const carriageReturn = 0x0d
/** The end of a chunk. */
const chunkEnd = '\r\n'

/** Returns JSON on one line, because each line of an event needs a name. JSON has line ends between its tokens alone, where a space means the same. */
function onOneLine (json: string): string {
  return json.includes('\n') || json.includes('\r') ? json.replace(/[\r\n]/g, ' ') : json
}

function bytesOnOneLine (json: Buffer): Buffer {
  return json.includes(lineEnd) || json.includes(carriageReturn) ? Buffer.from(onOneLine(json.toString())) : json
}

function bytesOf (start: string, text: string, rest: Buffer | undefined, end: string): Buffer {
  if (rest === undefined) return Buffer.from(start + text + end)
  return Buffer.concat([Buffer.from(start + text), rest, Buffer.from(end)])
}

function fields (id: string | undefined): string {
  return id === undefined ? 'data: ' : `id: ${id}\ndata: `
}

/**
 * Returns an event whose data is JSON.
 * @param rest - UTF-8 that follows the text
 * @param id - the position that an EventSource names when it comes back
 */
export function event (text: string, rest?: Buffer, id?: string): Buffer {
  return bytesOf(fields(id), onOneLine(text), rest === undefined ? undefined : bytesOnOneLine(rest), '\n\n')
}

/** The same event as one chunk of HTTP/1.1. */
export function chunkedEvent (text: string, rest?: Buffer, id?: string): Buffer {
  const start = fields(id)
  const line = onOneLine(text)
  const tail = rest === undefined ? undefined : bytesOnOneLine(rest)
  const length = start.length + Buffer.byteLength(line) + (tail === undefined ? 0 : tail.length) + 2
  return bytesOf(`${length.toString(16)}\r\n${start}`, line, tail, `\n\n${chunkEnd}`)
}

/** Returns lines of an event stream that hold no JSON, such as a comment, as one chunk of HTTP/1.1. */
export function chunked (lines: string): string {
  return `${Buffer.byteLength(lines).toString(16)}\r\n${lines}${chunkEnd}`
}
