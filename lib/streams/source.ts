/** The parts of a stream's answer, read one by one. */
export interface Source {
  next (): Promise<{ done?: boolean | undefined, value?: unknown }>
  /** Reads no further, and lets the source free what it holds. Does not wait for it, and does not throw. */
  cancel (): void
}

type WebStream = Pick<ReadableStream<unknown>, 'getReader'>
type NodeStream = { destroy? (): unknown }

function ignore (): void {}

/** Calls a function whose outcome does not matter, because nothing is read any more. */
function quietly (call: () => unknown): void {
  new Promise(resolve => { resolve(call()) }).catch(ignore)
}

function webSource (stream: WebStream): Source {
  const reader = stream.getReader()
  return {
    next: () => reader.read(),
    // The iterator of a web stream would first wait for the part that is being read.
    cancel: () => { quietly(() => reader.cancel()) }
  }
}

/** Returns a source; `undefined` if the value is neither an async iterable nor a `ReadableStream`. */
export function sourceOf (given: unknown): Source | undefined {
  if (typeof given !== 'object' || given === null) return undefined
  if (typeof (given as Partial<WebStream>).getReader === 'function') return webSource(given as WebStream)
  if (typeof (given as Partial<AsyncIterable<unknown>>)[Symbol.asyncIterator] !== 'function') return undefined
  const iterator = (given as AsyncIterable<unknown>)[Symbol.asyncIterator]()
  return {
    next: async () => iterator.next(),
    cancel: () => {
      quietly(() => iterator.return?.())
      // The iterator of a Node.js stream would first wait for the part that is being read.
      quietly(() => (given as NodeStream).destroy?.())
    }
  }
}
