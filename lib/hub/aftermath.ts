/**
 * Runs the host's code that the end of a session calls: subscribers, abort listeners, `onLeave`. Any of these may end further sessions,
 * thousands of them. So they run one after the other and never within one another, and the stack does not grow with their number. The
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
      // The array grows while it is iterated.
      for (const task of tasks) {
        done++
        task()
      }
    } finally {
      this.#isRunning = false
      this.#tasks = tasks.slice(done)
      // If a task throws, for instance because the host's recursion has used up the stack, the others still run.
      if (this.#tasks.length > 0) setImmediate(() => { this.#work() })
    }
  }
}
