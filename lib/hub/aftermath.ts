/**
 * Calls what the end of a session sets off in the host: subscribers, abort listeners, `onLeave`. Any of these may end further sessions,
 * thousands of them. So they run one after the other, and never within one another: the stack stays as it is, however many they end. The
 * outermost call returns when all have run.
 */
export class Aftermath {
  #tasks: (() => void)[] = []
  #isRunning = false

  run (task: () => void): void {
    this.#tasks.push(task)
    if (!this.#isRunning) this.#work()
  }

  #work (): void {
    const tasks = this.#tasks
    this.#isRunning = true
    let done = 0
    try {
      // The array grows meanwhile.
      for (const task of tasks) {
        done++
        task()
      }
    } finally {
      this.#isRunning = false
      this.#tasks = tasks.slice(done)
      // A task that throws (the host's recursion has used up the stack, for instance) does not keep the others from running.
      if (this.#tasks.length > 0) setImmediate(() => { this.#work() })
    }
  }
}
