/** An error with which the server has answered a command. */
export class RedisAnswerError extends Error {
  override readonly name = 'RedisAnswerError'
  /** The first word: `OOM`, `READONLY`, `NOSCRIPT`. */
  readonly word: string

  constructor (message: string) {
    super(message)
    this.word = /^-?([A-Z]+)\b/.exec(message)?.[1] ?? 'ERR'
  }
}
