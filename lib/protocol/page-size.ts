/** Messages of one page of kept messages by default, and at most. */
export const defaultPage = 100
export const maxPage = 1_000
