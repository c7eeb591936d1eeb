import { connection } from "next/server";

import { Desk } from "./desk";

/** Render per request, with the relay's URL from the server's environment. */
export default async function Page() {
  await connection();
  return <Desk url={process.env.RELAY_WS_URL} />;
}
