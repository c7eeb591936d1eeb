import { connection } from "next/server";

import { Desk } from "./desk";

/** Rendered for each request: the server's own environment says where the relay is. */
export default async function Page() {
  await connection();
  return <Desk url={process.env.RELAY_WS_URL} />;
}
