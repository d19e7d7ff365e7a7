// The microphones and loudspeakers there are.

// The devices that can be chosen, {microphones, loudspeakers} as {id, label}; labels are there once permission was given.
export async function audioDevices() {
  const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ label }) => label);
  const of = (wanted) => devices.filter(({ kind }) => kind === wanted).map(({ deviceId, label }) => ({ id: deviceId, label }));
  return { microphones: of("audioinput"), loudspeakers: of("audiooutput") };
}

// Lets an AudioContext or an audio element sound there, where the browser can choose; "" is the system's, and takes the place of one that is
// gone.
export async function useLoudspeaker(player, id) {
  if (id === undefined || !player.setSinkId) return;
  try {
    await player.setSinkId(id);
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
    await player.setSinkId("");
  }
}
