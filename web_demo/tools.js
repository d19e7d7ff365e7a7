// A function for the model to call, as an example: the time of day in a city. It runs in the browser, which knows the time zones.

const ZONES = {
  Amsterdam: "Europe/Amsterdam",
  Berlin: "Europe/Berlin",
  Bern: "Europe/Zurich",
  Delhi: "Asia/Kolkata",
  London: "Europe/London",
  Nairobi: "Africa/Nairobi",
  "New York": "America/New_York",
  Paris: "Europe/Paris",
  "San Francisco": "America/Los_Angeles",
  Sydney: "Australia/Sydney",
  Tokyo: "Asia/Tokyo",
  Zurich: "Europe/Zurich",
};

export const CITY_TIME = {
  type: "function",
  name: "city_time",
  description: "The time of day in a city, now.",
  parameters: { type: "object", properties: { city: { type: "string", enum: Object.keys(ZONES) } }, required: ["city"] },
};

// What a call gives, as text for the model: also where the model has called what there is not.
export function runTool(name, argumentsText, now = new Date()) {
  if (name !== CITY_TIME.name) return `There is no function ${name}.`;
  let city;
  try {
    ({ city } = JSON.parse(argumentsText));
  } catch {
    return "The arguments are not JSON.";
  }
  const zone = Object.hasOwn(ZONES, city) ? ZONES[city] : null;
  if (!zone) return `The city must be one of ${Object.keys(ZONES).join(", ")}.`;
  return new Intl.DateTimeFormat("en-GB", { timeZone: zone, weekday: "long", hour: "2-digit", minute: "2-digit" }).format(now);
}
